"""Counts of non-finite values while a block is attacked, kept on the device so that no step synchronises."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from signsym_core.models.outputs import ADVICE, NonFiniteOutputError, broken_for

T = TypeVar("T")


def mended(total: Tensor) -> None:
    """Replace non-finite gradients by 0 in every operation of the graph of `total`."""
    nodes, waiting = set(), [total.grad_fn]
    while waiting:
        node = waiting.pop()
        if node is not None and node not in nodes and node.next_functions:
            nodes.add(node)
            node.register_hook(_finite)
            waiting += [following for following, _ in node.next_functions]


def _finite(gradients: Sequence[Tensor | None], _: Sequence[Tensor | None]) -> tuple[Tensor | None, ...]:
    return tuple(
        None if gradient is None else torch.where(gradient.isfinite(), gradient, 0.0) for gradient in gradients
    )


class Tally:
    """Counts of a block of n images, shared by all problems that are made of it.

    A gradient entry that is NaN or infinite carries no information about its pixel: it counts as 0, so that the attack
    continues with the other pixels. Outputs that are not finite are an error.

    One operation without a derivative at a point, such as a square root at 0, makes the gradients of all its inputs
    NaN. So where there were any, the attack is run again with `careful`: non-finite gradients then become 0 where they
    arise, as if the operation had been written with the derivative 0 there.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        #: int64 [n]: number of non-finite entries of an image's gradient; of several gradients, the largest number.
        self.entries = torch.zeros(count, dtype=torch.int64, device=device)
        #: Whether non-finite gradients are replaced inside the model.
        self.careful = False
        #: Whether any gradient was computed.
        self.followed = False
        #: By what the model is called: of how many images outputs were not finite, and how many were shown to it.
        self._outputs: dict[str, tuple[Tensor, int]] = {}

    def usable(self, gradient: Tensor, numbers: Tensor) -> Tensor:
        """`gradient` [m, ...], of images with these `numbers`, with 0 in place of what is not finite: see `note`."""
        self.followed = True
        finite = gradient.isfinite()
        self.note((~finite).flatten(1).sum(dim=1), numbers)
        return torch.where(finite, gradient, 0.0)

    def separately(self, run: Callable[[], T]) -> tuple[T, Tensor]:
        """What `run` returns, and the numbers [n] of non-finite entries in it, which are not counted before `note`."""
        before, self.entries = self.entries, torch.zeros_like(self.entries)
        try:
            result = run()
        finally:
            entries, self.entries = self.entries, before
        return result, entries

    def note(self, entries: Tensor, numbers: Tensor) -> None:
        """Record that `entries`, int64 [m], gradient entries were not finite in the images with these `numbers` [m].

        Numbers may repeat. Numbers [m, c] give c candidates for each image, all of which are counted.
        """
        entries = entries.view(-1, *[1] * (numbers.ndim - 1)).expand_as(numbers)
        self.entries.scatter_reduce_(0, numbers.flatten(), entries.flatten(), "amax")

    def saw(self, outputs: Tensor, who: str) -> None:
        """Record outputs [m, outputs] of the model that messages call `who`."""
        broken, shown = self._outputs.get(who, (torch.zeros((), dtype=torch.int64, device=outputs.device), 0))
        self._outputs[who] = (broken + (~outputs.detach().isfinite()).any(dim=1).sum(), shown + len(outputs))

    def refuse(self) -> None:
        """Raise NonFiniteOutputError if any outputs so far were not finite. Waits for the device."""
        for who, (broken, shown) in self._outputs.items():
            if int(broken):
                shown_to_it = broken_for(who, int(broken), shown, "images that the attack showed it")
                raise NonFiniteOutputError(f"{shown_to_it}; {ADVICE}")

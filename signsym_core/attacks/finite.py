"""What is not finite while a block is under attack: found on the device, so that no step waits for an answer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch
from torch import Tensor

from signsym_core.outputs import ADVICE, NonFiniteOutputError, broken_for

T = TypeVar("T")


def mended(total: Tensor) -> None:
    """Let no operation that `total` was computed by pass on a gradient that is not finite: 0 goes on in its place."""
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

    An entry of a gradient that is NaN or infinite says nothing about its pixel: it counts as 0, so that the attack
    goes on with the others. Outputs that are not finite say nothing about the image: they are an error.

    One step that has no derivative at a point, such as a root at 0, makes NaN of all pixels that reach it. So the
    attack is run once more where there were any, `careful`: then what is not finite becomes 0 where it arises, as if
    that step had been written with the derivative 0 there.
    """

    def __init__(self, count: int, device: torch.device) -> None:
        #: int64 [n]: how many entries of an image's gradient were not finite; of several gradients, of the worst one.
        self.entries = torch.zeros(count, dtype=torch.int64, device=device)
        #: Whether gradients are mended inside the model.
        self.careful = False
        #: Whether a gradient was asked for at all.
        self.followed = False
        #: By what the model is called: of how many images outputs were not finite, and how many were shown to it.
        self._outputs: dict[str, tuple[Tensor, int]] = {}

    def usable(self, gradient: Tensor, numbers: Tensor) -> Tensor:
        """`gradient` [m, ...], of images with these `numbers`, with 0 in place of what is not finite: see `note`."""
        self.followed = True
        finite = gradient.isfinite()
        self.note((~finite).flatten(1).sum(dim=1), numbers)
        return torch.where(finite, gradient, 0.0)

    def alone(self, run: Callable[[], T]) -> tuple[T, Tensor]:
        """What `run` returns, and the entries [n] that were not finite in it; they are not counted before `note`."""
        before, self.entries = self.entries, torch.zeros_like(self.entries)
        try:
            result = run()
        finally:
            entries, self.entries = self.entries, before
        return result, entries

    def note(self, entries: Tensor, numbers: Tensor) -> None:
        """So many entries, int64 [m], were not finite in the images with these numbers in the block: [m], or [m, any].

        Numbers may come several times; several numbers for one image are all that it may be.
        """
        entries = entries.view(-1, *[1] * (numbers.ndim - 1)).expand_as(numbers)
        self.entries.scatter_reduce_(0, numbers.flatten(), entries.flatten(), "amax")

    def saw(self, outputs: Tensor, who: str) -> None:
        """The model that is called `who` gave these outputs [m, outputs]."""
        broken, shown = self._outputs.get(who, (torch.zeros((), dtype=torch.int64, device=outputs.device), 0))
        self._outputs[who] = (broken + (~outputs.detach().isfinite()).any(dim=1).sum(), shown + len(outputs))

    def refuse(self) -> None:
        """Raise NonFiniteOutputError if any outputs so far were not finite. Waits for the device."""
        for who, (broken, shown) in self._outputs.items():
            if int(broken):
                shown_to_it = broken_for(who, int(broken), shown, "images that the attack showed it")
                raise NonFiniteOutputError(f"{shown_to_it}; {ADVICE}")

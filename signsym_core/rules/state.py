"""The feedback matrix of one layer: made from the weights, kept until they change, saved as a few bytes.

B is made again when the layer's weight has changed: torch counts every in-place change of a tensor, a
`load_state_dict` included, so nobody has to announce one. Fused optimisers write past that counter, so after every
optimiser's step the weights that carry a feedback are counted here. (What is left is writing through `weight.data` by
hand, which autograd does not see either.) The random magnitudes are not saved but drawn again: draw number
k of a layer depends on the seed, the layer's place in the network and k alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from signsym_core import seeds
from signsym_core.rules.base import Rule


class FeedbackState:
    """The feedback of one layer: its rule, its randomness and its current matrix B."""

    def __init__(self, rule: Rule, seed: int, index: int, name: str) -> None:
        self.rule = rule
        self.seed = seed
        #: Place of the layer's weight among the converted weights of the network.
        self.index = index
        #: Name of the layer in the network, for messages.
        self.name = name
        #: How often the magnitudes were drawn, 0 before the first time.
        self.draws = 0
        #: Size that a frozen rule measured at conversion, flattened; None for the others.
        self.frozen_size: list[float] | None = None
        self._magnitudes: Tensor | None = None
        self._matrix: Tensor | None = None
        #: What `_matrix` was made from: the weight's identity, storage and version.
        self._built_from: tuple[int, int, int] | None = None
        #: The weight's identity and version that the last draw belongs to.
        self._drawn_for: tuple[int, int] | None = None
        #: A matrix that takes the place of B, for a while.
        self.stand_in: Tensor | None = None

    def current(self, weight: Tensor, training: bool) -> Tensor:
        """B for the weights as they are now, of their shape, type and device.

        The tensor is reused: it is overwritten once the weights have changed.
        """
        if self.stand_in is not None:
            return self.stand_in
        version = weight._version
        identity = id(weight)
        if self._drawn_for is None or self._drawn_for[0] != identity:
            # Another tensor (a copy, a load by assignment) is no update of this one: its magnitudes stay.
            self._drawn_for = (identity, version)
            weight.carries_feedback = True  # type: ignore[attr-defined]
        redraw = self.rule.redraws == "forward" or (
            self.rule.redraws == "update" and training and self._drawn_for[1] != version
        )
        stamp = (identity, weight.data_ptr(), version)
        if redraw or self._matrix is None or self._built_from != stamp:
            # An inference tensor could not be saved for a later backward pass.
            with torch.inference_mode(False), torch.no_grad():
                self._make(weight.detach(), redraw)
            self._built_from = stamp
            if redraw:
                self._drawn_for = (identity, version)
        assert self._matrix is not None
        return self._matrix

    def redrawn(self, weight: Tensor, number: int) -> Tensor:
        """B as another draw of the magnitudes makes it: draw `number` of a stream of its own. B itself stays."""
        generator = seeds.generator(self.seed, "redraw", self.index, number, device=weight.device)
        magnitudes = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
        self.rule.draw(magnitudes, generator)
        matrix = torch.empty_like(weight)
        self.rule.build(weight, magnitudes, self._size(weight), matrix)
        return matrix

    def peek(self, weight: Tensor, training: bool) -> Tensor:
        """`current`, but a rule that draws at every forward pass is not made to draw by being looked at."""
        if self.rule.redraws == "forward" and self._matrix is not None:
            return self._matrix
        return self.current(weight, training)

    def _make(self, weight: Tensor, redraw: bool) -> None:
        if self.rule.random:
            fresh = redraw or self.draws == 0
            self.draws += fresh
            if fresh or self._magnitudes is None:
                self._draw(weight)
        # With a new draw at every forward, an earlier graph may still hold the last matrix.
        if self._matrix is None or not _alike(self._matrix, weight) or self.rule.redraws == "forward":
            self._matrix = torch.empty_like(weight)
        self.rule.build(weight, self._magnitudes, self._size(weight), self._matrix)

    def _draw(self, weight: Tensor) -> None:
        # What is drawn once is drawn on the CPU, the same on every machine; what is drawn at every update is drawn
        # where the weights are, since copying it there would cost more than drawing it.
        device = torch.device("cpu") if self.rule.redraws == "never" else weight.device
        generator = seeds.generator(self.seed, "feedback", self.index, self.draws, device=device)
        reusable = self._magnitudes is not None and self._magnitudes.dtype == weight.dtype
        if self._magnitudes is None or not reusable or self._magnitudes.device != device:
            # Contiguous whatever the weight is, so that the draw does not depend on the memory format.
            self._magnitudes = torch.empty(weight.shape, dtype=weight.dtype, device=device)
        self.rule.draw(self._magnitudes, generator)
        self._magnitudes = self._magnitudes.to(weight.device)

    def _size(self, weight: Tensor) -> Tensor | float:
        if not self.rule.frozen:
            return self.rule.size(weight)
        if self.frozen_size is None:
            size = torch.as_tensor(self.rule.size(weight))
            self.frozen_size = [float(value) for value in size.flatten()]
        shape = [-1] + [1] * (weight.ndim - 1)
        sizes = torch.tensor(self.frozen_size, dtype=weight.dtype, device=weight.device)
        return sizes.view(shape) if len(self.frozen_size) > 1 else sizes

    def moved(self, function: Callable[[Tensor], Tensor]) -> None:
        """Apply what `Module.to`, `.half()` and the like apply to parameters. B itself is made again when needed."""
        self._matrix = self._built_from = None
        if self._magnitudes is not None:
            self._magnitudes = function(self._magnitudes)

    def record(self, weight: Tensor) -> Tensor:
        """What a checkpoint needs to make the same B again, as the bytes of a JSON text (a uint8 tensor)."""
        # Another tensor than the one of the last draw is a copy of it, not an update.
        drawn_for = self._drawn_for or (id(weight), weight._version)
        due = drawn_for[0] == id(weight) and drawn_for[1] != weight._version
        fields: dict[str, Any] = {"rule": self.rule.name, "parameters": self.rule.parameters(), "seed": self.seed}
        fields |= {"index": self.index, "draws": self.draws, "frozen_size": self.frozen_size, "update_due": due}
        return torch.frombuffer(bytearray(json.dumps(fields, sort_keys=True).encode()), dtype=torch.uint8)

    def restore(self, record: Tensor, weight: Tensor) -> None:
        """Go on from `record`, made by a layer of the same rule.

        Raises ValueError, naming the layer, where the record is of another rule or of other parameters: its B would
        silently be another one.
        """
        fields = json.loads(bytes(record.cpu().tolist()))
        mine = {"rule": self.rule.name, "parameters": json.loads(json.dumps(self.rule.parameters()))}
        theirs = {"rule": fields["rule"], "parameters": fields["parameters"]}
        if mine != theirs:
            raise ValueError(
                f"layer {self.name!r}: the checkpoint's feedback is {theirs}, the model was converted with {mine}; "
                f"convert the network with the checkpoint's rule first"
            )
        self.seed, self.index = int(fields["seed"]), int(fields["index"])
        self.draws, self.frozen_size = int(fields["draws"]), fields["frozen_size"]
        self._magnitudes = self._matrix = self._built_from = None
        # Where the checkpoint was taken after an update, the next training step owes a new draw here as there.
        self._drawn_for = (id(weight), weight._version - bool(fields["update_due"]))
        weight.carries_feedback = True  # type: ignore[attr-defined]


def _alike(tensor: Tensor, other: Tensor) -> bool:
    return (tensor.shape, tensor.dtype, tensor.device, tensor.stride()) == (
        other.shape,
        other.dtype,
        other.device,
        other.stride(),
    )


def _count_step(optimizer: Optimizer, *_: Any) -> None:
    stepped = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.autograd.graph.increment_version([w for w in stepped if getattr(w, "carries_feedback", False)])


register_optimizer_step_post_hook(_count_step)

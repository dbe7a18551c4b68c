"""The feedback matrix of one layer: made from the weights of the pass that uses it, saved as a few letters.

Every forward pass that is recorded for a backward pass has a B made from the very weights that it multiplies by. B is
made again unless a comparison of all values shows that the weights are those of the last one; how they were written, or
whether torch counted it, plays no part. On a GPU, where a comparison would make the host wait, B is always made again.

Magnitudes that are drawn after every update are drawn at the first pass in training mode whose weights are not those
of the last draw. The draws are not saved but made again: draw number k of a layer depends on the seed, the layer's
place in the network and k alone.
"""

from __future__ import annotations

import copy
import json
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_post_hook

from signsym_core import seeds
from signsym_core.rules import record
from signsym_core.rules.base import Rule
from signsym_core.rules.draws import Draws
from signsym_core.rules.snapshot import Snapshot, alike


class ZeroFeedbackError(ValueError):
    """B, or some rows of it, would always be 0, so that no gradient would pass through it."""


class Use:
    """A reference to a matrix: while it is alive, the matrix is not overwritten."""


class Service:
    """Whether the forward pass of a layer, or of its replicas, has run since the conversion."""

    ran = False


class FeedbackState:
    """The feedback of one layer: its rule, its randomness and its current matrix B."""

    def __init__(self, rule: Rule, seed: int, index: int, name: str) -> None:
        self.rule = rule
        self.seed = seed
        #: Place of the layer's weight among the converted weights of the network.
        self.index = index
        #: Name of the layer in the network, for messages.
        self.name = name
        #: How often the magnitudes were drawn.
        self.draws = int(rule.random)
        #: Size that a frozen rule measured at conversion, flattened; None for the others.
        self.frozen_size: list[float] | None = None
        self.service = Service()
        #: The number of another draw that takes the place of the layer's own, for a while: see `redrawn`.
        self.number: int | None = None
        #: A matrix that takes the place of B, for a while, by a caller that answers for it.
        self.stand_in: Tensor | None = None
        #: What draws for all layers at once on a GPU, for a rule that draws after every update.
        self.shared: Draws | None = None
        #: Whether the draws are counted elsewhere, as those of a replica are.
        self._follows = False
        self._magnitudes: Tensor | None = None
        #: Which draw the magnitudes are.
        self._magnitudes_number = 0
        self._matrix: Tensor | None = None
        #: What the matrix was made from, and with which draw.
        self._made_from: Snapshot | None = None
        self._made_with = 0
        self._use: weakref.ref[Use] | None = None
        #: The weights that the last draw belongs to; None where a draw is owed whatever the weights are.
        self._drawn_for: Snapshot | None = None
        self._sizes: Tensor | None = None

    def begin(self, weight: Tensor) -> None:
        """Measure and draw what belongs to the conversion. Raises ZeroFeedbackError."""
        with torch.no_grad():
            weight_now = weight.detach()
            if self.rule.frozen:
                measured = torch.as_tensor(self.rule.size(weight_now))
                self.frozen_size = [float(value) for value in measured.flatten()]
                self._refuse_zero()
            if self.rule.redraws == "update":
                self._drawn_for = Snapshot(weight).keep(weight_now)

    def current(self, weight: Tensor, training: bool) -> Tensor:
        """B for `weight` as it is now, of its shape, type and device; a draw that a forward pass owes is made.

        The tensor is overwritten once the weights have changed, unless a `Use` of it lives.
        """
        if self.stand_in is not None:
            return self.stand_in
        # An inference tensor could not be saved for a later backward pass.
        with torch.inference_mode(False), torch.no_grad():
            if self.number is not None:
                return self.redrawn(weight.detach(), self.number)
            return self._up_to_date(weight, self.advance(weight, training))

    def peek(self, weight: Tensor, training: bool) -> Tensor:
        """`current`, but without a new draw for a rule that draws at every forward pass."""
        if self.rule.redraws != "forward" or self.stand_in is not None or self.number is not None:
            return self.current(weight, training)
        with torch.inference_mode(False), torch.no_grad():
            return self._up_to_date(weight, False)

    def use(self) -> Use:
        """A use of the last matrix that `current` gave."""
        use = None if self._use is None else self._use()
        if use is None:
            use = Use()
            self._use = weakref.ref(use)
        return use

    def advance(self, weight: Tensor, training: bool) -> bool:
        """Count the draw that a forward pass on `weight`, recorded or not, owes; True where it belongs to `weight`."""
        if self._follows or self.number is not None or self.stand_in is not None:
            return False
        if self.rule.redraws == "forward":
            self.draws += 1
        elif self.rule.redraws == "update" and training and self.owes_draw(weight):
            self.draws += 1
            self.drawn_for(weight)
            return True
        return False

    def owes_draw(self, weight: Tensor) -> bool:
        """Whether `weight` is an update of the weights that the last draw belongs to."""
        if self.rule.redraws != "update":
            return False
        drawn_for = self._drawn_for
        return drawn_for is None or drawn_for.written(weight) or not drawn_for.holds(weight)

    def owe_draw(self) -> None:
        """Say that the weights are an update of those that the last draw belongs to."""
        self._drawn_for = None

    def drawn_for(self, weight: Tensor) -> None:
        """Say that the last draw belongs to `weight` as it is now."""
        with torch.no_grad():
            buffer = None if self._drawn_for is None else self._drawn_for.values
            self._drawn_for = Snapshot(weight).keep(weight.detach(), buffer)
            # Its buffer may be what the last matrix was made from.
            self._made_from = None

    def redrawn(self, weight: Tensor, number: int) -> Tensor:
        """B as another draw of the magnitudes makes it: draw `number` of a stream of its own. B itself stays."""
        generator = seeds.generator(self.seed, "redraw", self.index, number, device=weight.device)
        magnitudes = torch.empty(weight.shape, dtype=weight.dtype, device=weight.device)
        self.rule.draw(magnitudes, generator)
        matrix = torch.empty_like(weight)
        self.rule.build(weight, magnitudes, self.size(weight), matrix)
        return matrix

    def make(self, weight: Tensor, magnitudes: Tensor | None, out: Tensor) -> None:
        """Write B of `weight` as it is now into `out`. The host waits for nothing, and no shape depends on values."""
        exact = out if out.dtype == weight.dtype or self.rule.rounds else torch.empty_like(weight)
        build: Callable[..., object] = self.rule.build
        if (returned := build(weight, magnitudes, self.size(weight), exact)) is not None:
            raise TypeError(
                f"rule {self.rule.name!r}: build must write B into `out` and return nothing; it returned a "
                f"{type(returned).__name__}"
            )
        if exact is not out:
            out.copy_(exact)

    def magnitudes(self, weight: Tensor) -> Tensor | None:
        """The numbers of draw `draws`, drawn where they are not at hand; None for a rule without."""
        if self.shared is not None and weight.is_cuda:
            return self.shared.of(self.index, self.draws, weight)
        if self.rule.random and (self._magnitudes is None or self._magnitudes_number != self.draws):
            self._draw(weight)
        return self._magnitudes

    def size(self, weight: Tensor) -> Tensor | float:
        """The factor between the raw draw and B."""
        if self.frozen_size is None:
            return self.rule.size(weight)
        sizes = self._sizes
        if sizes is None or (sizes.dtype, sizes.device) != (weight.dtype, weight.device):
            sizes = torch.tensor(self.frozen_size, dtype=weight.dtype, device=weight.device)
            self._sizes = sizes = sizes.view([-1] + [1] * (weight.ndim - 1)) if sizes.numel() > 1 else sizes
        return sizes

    def replica(self, weight: Tensor, training: bool) -> FeedbackState:
        """The state of a copy of the layer on another device: the same draws, counted here, and matrices of its own."""
        self.advance(weight, training)
        replica = copy.copy(self)
        replica._follows = True
        replica._magnitudes = replica._matrix = replica._made_from = replica._use = replica._sizes = None
        return replica

    def moved(self, function: Callable[[Tensor], Tensor], weight: Tensor, owed: bool) -> None:
        """Apply what `Module.to`, `.half()` and the like applied to `weight`; `owed` says whether a draw was owed."""
        self._matrix = self._made_from = self._use = None
        if self._magnitudes is not None:
            self._magnitudes = function(self._magnitudes)
        if self.rule.redraws == "update":
            self._drawn_for = None if owed else Snapshot(weight).keep(weight.detach())

    def record(self, weight: Tensor) -> Tensor:
        """What a checkpoint needs to make the same B again: see `rules.record`."""
        fields: dict[str, Any] = {"rule": self.rule.name, "parameters": self.rule.parameters(), "seed": self.seed}
        fields |= {"index": self.index, "draws": self.draws, "frozen_size": self.frozen_size}
        return record.write(json.loads(json.dumps(fields | {"update_due": self.owes_draw(weight)})))

    def restore(self, state: Tensor, weight: Tensor) -> None:
        """Go on from a record made by a layer of the same rule. An average of records leaves the feedback as it is.

        Raises `record.FeedbackOfAnotherRuleError` where the record is of another rule or of other parameters: its B
        would silently be another one.
        """
        fields = record.read_for(self.rule, state, self.name)
        if fields is None:
            return
        self.seed, self.index = int(fields["seed"]), int(fields["index"])
        self.draws, self.frozen_size = int(fields["draws"]), fields["frozen_size"]
        self._magnitudes = self._matrix = self._made_from = self._sizes = None
        self._refuse_zero()
        if self.shared is not None:
            self.shared.seed, self.shared.number = self.seed, 0
        if self.rule.redraws == "update":
            # Where the checkpoint was taken after an update, the next training step owes a new draw here as there.
            self._drawn_for = None if fields["update_due"] else Snapshot(weight).keep(weight.detach())

    def _up_to_date(self, weight: Tensor, drawn: bool) -> Tensor:
        """B for `weight`; `drawn` says that a draw was just counted for it, which kept its values."""
        values, last = weight.detach(), self._made_from
        matrix = self._matrix
        if matrix is not None and not alike(matrix, values):
            matrix = None
        now = self._drawn_for if drawn and self._drawn_for is not None else Snapshot(weight)
        if matrix is not None and last is not None and self._made_with == self.draws:
            if self.rule.frozen:
                return matrix
            # Where the counter went on, as after every step of training, comparing would be in vain.
            if values.device.type == "cpu" and not last.written(weight):
                if last.holds(values):
                    return matrix
                now.keep(values, None if last is self._drawn_for else last.values)
        if matrix is None or (self._use is not None and self._use() is not None):
            matrix = torch.empty_like(values)
        self.make(values, self.magnitudes(values), matrix)
        self._matrix, self._use = matrix, None
        self._made_from, self._made_with = now, self.draws
        return matrix

    def _draw(self, weight: Tensor) -> None:
        # What is drawn once is drawn on the CPU, the same on every machine; what is drawn at every update is drawn
        # where the weights are, since copying it there would cost more than drawing it.
        device = torch.device("cpu") if self.rule.redraws == "never" else weight.device
        generator = seeds.generator(self.seed, "feedback", self.index, self.draws, device=device)
        # Contiguous whatever the weight is, so that the draw does not depend on the memory format.
        drawn = self._magnitudes
        if drawn is None or (drawn.dtype, drawn.device) != (weight.dtype, device) or not drawn.is_contiguous():
            drawn = torch.empty(weight.shape, dtype=weight.dtype, device=device)
        self.rule.draw(drawn, generator)
        self._magnitudes = drawn.to(weight.device)
        self._magnitudes_number = self.draws

    def _refuse_zero(self) -> None:
        zeros = sum(size == 0 for size in self.frozen_size or [])
        if zeros:
            zero_rows = (
                "B" if zeros == len(self.frozen_size or []) else f"{zeros} of {len(self.frozen_size or [])} rows of B"
            )
            raise ZeroFeedbackError(
                f"layer {self.name!r}: its weights are 0, and rule {self.rule.name!r} measures the size of B once, on "
                f"the weights at conversion, so that {zero_rows} would always be 0; initialise the layer first, choose "
                f"a scale that does not depend on the weights ('xavier', 'he_fanout', 'unit'), or leave the layer to "
                f"BP: bp_layers=({self.name!r},)"
            )

    def __getstate__(self) -> dict[str, Any]:
        # Copies make their own matrix; a use is of this one.
        return self.__dict__ | {"_matrix": None, "_made_from": None, "_use": None}


def _count_step(optimizer: Optimizer, *_: Any) -> None:
    """Count what fused optimisers write past the version counter."""
    stepped = [weight for group in optimizer.param_groups for weight in group["params"]]
    torch.autograd.graph.increment_version([w for w in stepped if getattr(w, "carries_feedback", False)])


register_optimizer_step_post_hook(_count_step)

"""B of all layers of a network on a GPU, computed once per training step, before its backward pass.

Computed layer by layer, B would interrupt the kernels of the forward pass. Here it is computed from the same weights
concurrently with the forward pass, which does not need it, and in the type of the backward pass.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

import torch
from torch import Tensor, nn

from signsym_core.rules.convert import converted
from signsym_core.rules.feedback import FeedbackLayer
from signsym_core.rules.held import LearnedState
from signsym_core.rules.signed import smallest


class Measured(Protocol):
    """What is known of the weights as they are now."""

    def weight_norm(self, weight: Tensor) -> Tensor | None:
        """‖W‖₂, float32 []: a tensor that stays the same one; None where it was not measured."""

    def rounded(self, weight: Tensor) -> Tensor | None:
        """The weight in fewer bits, a tensor that stays the same one; None where there is none."""


class Together:
    """The feedback of `model`'s layers while it is trained, of type `dtype`; None: of their weights' type."""

    def __init__(self, model: nn.Module, dtype: torch.dtype | None) -> None:
        self.dtype = dtype
        #: What measures the weights and rounds them as it updates them, if anything does.
        self.measured: Measured | None = None
        layers = [layer for _, layer in converted(model) if not layer.plain]
        #: Whether every layer's B can be made ahead: not where it is drawn at each of several forward passes, nor where
        #: it is learned, since lessons are code of the host, which a replay does not run.
        self.serves = all(
            layer.state.rule.redraws != "forward" and not isinstance(layer.state, LearnedState) for layer in layers
        )
        self.layers = layers if self.serves else []
        self._matrices = [torch.empty_like(layer.weight, dtype=dtype, requires_grad=False) for layer in self.layers]
        #: Magnitudes that are drawn once, in the weights' memory format.
        self._magnitudes: list[Tensor | None] = []
        #: Sizes that are numbers, as tensors of the weights' type.
        self._fixed_sizes: list[Tensor | None] = []
        for layer, matrix in zip(self.layers, self._matrices, strict=True):
            state, weight = layer.state, layer.weight.detach()
            # Draws and measures what belongs to the conversion; a matrix that never changes again is made here.
            matrix.copy_(state.peek(layer.weight, training=False))
            drawn = None if state.rule.redraws != "never" else state.magnitudes(weight)
            kept = None if drawn is None else torch.empty_like(weight).copy_(drawn)
            size = state.size(weight)
            self._fixed_sizes.append(None if isinstance(size, Tensor) else weight.new_full((), size))
            self._magnitudes.append(smallest(kept) if kept is not None and state.rule.rounds else kept)
        device = self._matrices[0].device if self._matrices else None
        shared = {id(layer.state.shared): layer.state.shared for layer in self._redrawing()}
        self.generators = [draws.generator(device) for draws in shared.values() if draws is not None and device]
        self._side = None if device is None or device.type != "cuda" else torch.cuda.Stream(device)

    def advance(self) -> None:
        """Count the draws of one step, which a replay of a graph makes without Python."""
        for layer in self._redrawing():
            layer.state.draws += 1
        self._written()

    def seed(self) -> None:
        """Seed the generators for the draws that were counted last."""
        for layer in self._redrawing():
            assert layer.state.shared is not None
            layer.state.shared.seeded(layer.state.draws, layer.weight.device)
            # A graph's draw is known to nobody else.
            layer.state.shared.number = 0

    @contextlib.contextmanager
    def ahead(self) -> Iterator[Callable[[], None]]:
        """Inside the block the layers have their B for one step; call the yielded function before `backward`."""
        for layer in self._redrawing():
            layer.state.draws += layer.state.owes_draw(layer.weight)
        side = self._side
        try:
            if side is None or not torch.cuda.is_current_stream_capturing():
                self._make_all()
                yield lambda: None
            else:
                # In a graph beside the forward pass; kernel by kernel the host could not launch both fast enough.
                here = torch.cuda.current_stream()
                side.wait_stream(here)
                with torch.cuda.stream(side):
                    self._make_all()
                yield lambda: here.wait_stream(side)
        finally:
            for layer in self.layers:
                layer.state.stand_in = None
            self._written()

    @torch.no_grad()
    def _make_all(self) -> None:
        for place, layer in enumerate(self.layers):
            self._make(layer, place)

    def _make(self, layer: FeedbackLayer, place: int) -> None:
        state, weight, matrix = layer.state, layer.weight.detach(), self._matrices[place]
        state.stand_in = matrix
        if state.rule.frozen:
            return
        kept = self._magnitudes[place]
        magnitudes = state.magnitudes(weight) if kept is None else kept
        if not state.rule.rounds:
            state.make(weight, magnitudes, matrix)
            return
        # Half the bytes, with the same signs: rounding makes zeros only of numbers below 1e-40.
        rounded = None if self.measured is None else self.measured.rounded(layer.weight)
        state.rule.build(weight if rounded is None else rounded, magnitudes, self._size(layer, place), matrix)

    def _size(self, layer: FeedbackLayer, place: int) -> Tensor | float:
        """The size of a layer's B, a tensor where the weight may be a rounded one."""
        if (fixed := self._fixed_sizes[place]) is not None:
            return fixed
        factor = layer.state.rule.size_by_norm(layer.weight)
        if self.measured is not None and factor is not None:
            norm = self.measured.weight_norm(layer.weight)
            if norm is not None:
                return norm * factor
        return layer.state.size(layer.weight.detach())

    def _redrawing(self) -> list[FeedbackLayer]:
        return [layer for layer in self.layers if layer.state.rule.redraws == "update"]

    def _written(self) -> None:
        """Count the update of the weights that ends every step: replaying a graph increments no version counter."""
        torch.autograd.graph.increment_version([layer.weight for layer in self.layers])
        for layer in self._redrawing():
            layer.state.owe_draw()

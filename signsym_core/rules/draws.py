"""The magnitudes of all layers of a network in one draw, so that a GPU redraws them with one launch per update.

Legend: layer l has a weight of n_l numbers [out, in, k, k] or [out, in]; all draws together are N = Σ n_l numbers, l's
begin at the sum of the n before it. A convolution's lie with the inputs last, [out, k, k, in], as its weight does in
memory while it is trained on a GPU.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.rules.base import Rule


class Draws:
    """The numbers of draw d of a network, U(seed, d); each layer uses its range of them."""

    def __init__(self, rule: Rule, seed: int, shapes: list[torch.Size]) -> None:
        self.rule, self.seed = rule, seed
        sizes = [math.prod(shape) for shape in shapes]
        self._starts = [sum(sizes[:place]) for place in range(len(sizes))]
        self._count = sum(sizes)
        #: The first layer that is drawn for: two rules of one network never share their numbers.
        self._first = next(place for place, size in enumerate(sizes) if size)
        #: Which draw `_numbers` is; 0: none.
        self.number = 0
        self._numbers: Tensor | None = None
        self._generator: torch.Generator | None = None

    def __deepcopy__(self, memo: dict[int, Any]) -> Draws:
        copy = Draws.__new__(Draws)
        copy.__dict__ = self.__dict__ | {"number": 0, "_numbers": None, "_generator": None}
        return copy

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"number": 0, "_numbers": None, "_generator": None}

    def generator(self, device: torch.device) -> torch.Generator:
        """The generator on `device`: always the same object, since a CUDA graph knows it by identity."""
        if self._generator is None or self._generator.device != device:
            self._generator = torch.Generator(device)
        return self._generator

    def seeded(self, number: int, device: torch.device) -> torch.Generator:
        """The generator at the beginning of draw `number`."""
        place = (self._first,) if self._first else ()
        return self.generator(device).manual_seed(seeds.derive(self.seed, "feedback", "all", number, *place))

    def of(self, layer: int, number: int, weight: Tensor) -> Tensor:
        """Layer `layer`'s magnitudes of draw `number`, of the weight's shape and type; valid until another draw."""
        here = self._numbers is not None and self._numbers.device == weight.device
        if not here or self.number != number:
            # While a graph is recorded nothing can be seeded: whoever replays it seeds before.
            recorded = weight.is_cuda and torch.cuda.is_current_stream_capturing()
            generator = self.generator(weight.device) if recorded else self.seeded(number, weight.device)
            if not here:
                self._numbers = torch.empty(self._count, dtype=torch.float32, device=weight.device)
            assert self._numbers is not None
            self.rule.draw(self._numbers, generator)
            self.number = number
        assert self._numbers is not None
        stretch = self._numbers[self._starts[layer] : self._starts[layer] + weight.numel()]
        if weight.ndim == 4:
            out, channels, height, width = weight.shape
            return stretch.view(out, height, width, channels).permute(0, 3, 1, 2).to(weight.dtype)
        return stretch.view(weight.shape).to(weight.dtype)

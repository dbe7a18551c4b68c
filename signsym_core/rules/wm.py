"""Weight mirrors (WM): each layer is shown noise, and B learns from the responses which weights it has."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor

from signsym_core.registry import Count, within
from signsym_core.rules.learned import LearnedRule, Lesson


@dataclasses.dataclass(frozen=True, kw_only=True)
class WeightMirror(LearnedRule):
    """B ← (1 - rate) B + rate yᵀ x / n at every step, with n noise vectors x ~ N(0, 1) and y = W x: E yᵀ x / n = W.

    Noise goes through the linear map of the layer alone, one vector [fan_in] for a position of a kernel. Under a
    constant W the angle of B to W tends to tan² = rate / (2 - rate) · (fan_in + 1) / samples. `start` is B before the
    first step: `random` as in feedback alignment, or `mirrored`, as after many steps on the W of the conversion.

    The decay form cannot grow; the authors' code, which adds without decay and whose growth control has no effect, can.
    """

    name = "wm"
    label = "WM"
    citation = "Akrout et al. 2019, Deep learning without weight transport, arXiv 1904.05391, equation 7"

    rate: Annotated[float, within("(0, 1]")] = 0.1
    samples: Count = 128
    start: Literal["random", "mirrored"] = "random"

    @property
    def follows_optimizer(self) -> bool:
        return False

    @property
    def needs_gradient(self) -> bool:
        return False

    def begin(self, weight: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        if self.start == "random":
            return super().begin(weight, generator)
        # As many vectors at once as decay averages over: the same angle as after many steps.
        lessons = math.ceil((2 - self.rate) / self.rate)
        matrix = torch.zeros(weight.shape, dtype=weight.dtype)
        for number in range(lessons):
            self._mirror(matrix, weight, 1 / (number + 1), generator)
        return {"B": matrix}

    def learn(self, held: Mapping[str, Tensor], lesson: Lesson) -> dict[str, Tensor]:
        self._mirror(held["B"], lesson.weight, self.rate, lesson.generator)
        return {}

    def _mirror(self, matrix: Tensor, weight: Tensor, rate: float, generator: torch.Generator) -> None:
        """B ← (1 - rate) B + rate yᵀ x / n, in place."""
        rows = weight.flatten(1)
        noise = torch.randn(self.samples, rows.shape[1], dtype=rows.dtype, device=rows.device, generator=generator)
        responses = noise @ rows.t()
        # A view of B, but where B has the memory format of images.
        flat = matrix.flatten(1)
        flat.addmm_(responses.t(), noise, beta=1 - rate, alpha=rate / self.samples)
        if flat.data_ptr() != matrix.data_ptr():
            matrix.copy_(flat.view(matrix.shape))

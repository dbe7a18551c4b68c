"""Feedback alignment: B is random and independent of the signs of W. The control without sign symmetry."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from signsym_core.rules.base import LEVELS, ScaledRule, fill_levels


@dataclasses.dataclass(frozen=True, kw_only=True)
class FA(ScaledRule):
    """FA, B = s · √3 · R with R ~ U(-1, 1) drawn once; s is measured once, on the weights at conversion."""

    name = "fa"
    label = "FA"
    citation = "Lillicrap et al. 2016, Random synaptic feedback weights support error backpropagation, Nat. Commun. 7"
    tags = frozenset({"fixed-after-init"})
    random = True
    frozen = True
    draw_rms = 1 / math.sqrt(3)

    def draw(self, out: Tensor, generator: torch.Generator) -> None:
        fill_levels(out, generator)
        out.mul_(2 / LEVELS).sub_(1)

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        assert draw is not None
        torch.mul(draw, size, out=out)

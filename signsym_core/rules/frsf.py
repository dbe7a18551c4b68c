"""Fixed random-magnitude sign-concordant feedback (frSF): the signs of W, magnitudes drawn once."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from signsym_core.rules.base import LEVELS, ScaledRule, fill_levels
from signsym_core.rules.signed import write_signed


@dataclasses.dataclass(frozen=True, kw_only=True)
class FRSF(ScaledRule):
    """frSF, B = s · √3 · M ∘ sign(W), M ~ U(0, 1) drawn once (the factor √3 makes s the RMS of B; not for `unit`).

    Fixed is M. Under the scales `rms` (the default), `rms_channel` and `mean_abs` the size s follows the weights;
    the fixed magnitudes of the paper, s · M, are those of `xavier`, `he_fanout` and `unit`.
    """

    name = "frsf"
    label = "frSF"
    citation = "Liao, Leibo, Poggio 2016, How important is weight symmetry in backpropagation?, arXiv 1510.05067"
    tags = frozenset({"sign-symmetric", "follows-weights", "fixed-draw"})
    random = True
    draw_rms = LEVELS / math.sqrt(3)
    draw_max = LEVELS

    def draw(self, out: Tensor, generator: torch.Generator) -> None:
        fill_levels(out, generator)

    @property
    def rounds(self) -> bool:
        return type(self).build is FRSF.build

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        write_signed(weight, draw, size, out)

"""Uniform sign-concordant feedback (uSF): the signs of W, all of one size."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from signsym_core.rules.base import ScaledRule
from signsym_core.rules.signed import write_signed


@dataclasses.dataclass(frozen=True, kw_only=True)
class USF(ScaledRule):
    """uSF, B = s · sign(W), with sign(0) = 0."""

    name = "usf"
    label = "uSF"
    citation = "Liao, Leibo, Poggio 2016, How important is weight symmetry in backpropagation?, arXiv 1510.05067"
    tags = frozenset({"sign-symmetric", "follows-weights"})

    @property
    def rounds(self) -> bool:
        return type(self).build is USF.build

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        write_signed(weight, None, size, out)

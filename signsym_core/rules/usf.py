"""Uniform sign-concordant feedback (uSF): the signs of W, all of one size."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from signsym_core.rules.base import ScaledRule


@dataclasses.dataclass(frozen=True, kw_only=True)
class USF(ScaledRule):
    """uSF, B = s · sign(W), with sign(0) = 0."""

    name = "usf"
    label = "uSF"
    citation = "Liao, Leibo, Poggio 2016, How important is weight symmetry in backpropagation?, arXiv 1510.05067"
    tags = frozenset({"sign-symmetric", "follows-weights"})

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        torch.sign(weight, out=out).mul_(size)

    def build_rounded(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        if type(self).build is not USF.build:
            super().build_rounded(weight, draw, size, out)
        else:
            # Rounded as it is written: a pass over all numbers less.
            torch.mul(torch.sign(weight), size, out=out)

"""Backpropagation: B = W."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from signsym_core.rules.base import Rule


@dataclasses.dataclass(frozen=True, kw_only=True)
class BP(Rule):
    """Backpropagation, g_x = Wᵀ δ: the layer is left to ordinary autograd."""

    name = "bp"
    label = "BP"
    citation = "Rumelhart, Hinton, Williams 1986, Learning representations by back-propagating errors"
    tags = frozenset({"exact", "follows-weights", "sign-symmetric"})
    exact = True

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        out.copy_(weight)

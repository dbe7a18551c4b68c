"""Symmetric alignment: B is drawn to W at a constant rate. Weight mirrors without their noise."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated

from torch import Tensor

from signsym_core.registry import within
from signsym_core.rules.learned import LearnedRule, Lesson


@dataclasses.dataclass(frozen=True, kw_only=True)
class SymmetricAlignment(LearnedRule):
    """B ← (1 - rate) B + rate W at every step: descent on -tr(Bᵀ W) + |B|² / 2, with W's own step left alone.

    It reads W, so that it transports weights: a control that says how fast B has to follow. Kunin et al. also draw W
    to B, which would change ∂W; here ∂W = δ xᵀ as under every rule.
    """

    name = "sym"
    label = "SA"
    citation = "Kunin et al. 2020, Two routes to scalable credit assignment without weight symmetry, arXiv 2003.01513"

    rate: Annotated[float, within("(0, 1]")] = 0.1

    @property
    def follows_optimizer(self) -> bool:
        return False

    @property
    def needs_gradient(self) -> bool:
        return False

    def learn(self, held: Mapping[str, Tensor], lesson: Lesson) -> dict[str, Tensor]:
        held["B"].lerp_(lesson.weight, self.rate)
        return {}

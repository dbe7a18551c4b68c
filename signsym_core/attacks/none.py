"""No attack: the clean images. Clean performance is this attack at epsilon 0."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from signsym_core.attacks.base import Attack
from signsym_core.attacks.problem import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class NoAttack(Attack):
    """x' = x."""

    name = "none"
    label = "clean"
    citation = "the clean images"
    tags = frozenset({"linf"})
    tasks = frozenset({"classification", "hashing"})

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        return problem.images

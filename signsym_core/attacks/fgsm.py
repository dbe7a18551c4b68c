"""The fast gradient sign method: one step of the size of epsilon, from one gradient for every epsilon."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from signsym_core.attacks.ball import steepest
from signsym_core.attacks.base import Cost, NormedAttack
from signsym_core.attacks.problem import Problem


@dataclasses.dataclass(frozen=True, kw_only=True)
class FGSM(NormedAttack):
    """x' = x + ε · sign(∇ L(x)); in L2 the fast gradient method, x' = x + ε · ∇ L(x) / |∇ L(x)|."""

    name = "fgsm"
    label = "FGSM"
    citation = "Goodfellow, Shlens, Szegedy 2015, Explaining and harnessing adversarial examples, arXiv 1412.6572"
    tags = frozenset({"white-box"})

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        return problem.images + epsilon * steepest(problem.clean_gradient, self.norm)

    def steps_taken(self) -> int:
        return 1

    def step(self, epsilon: float) -> float:
        return epsilon

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # The pass of the gradient has the clean outputs too.
        return Cost(forwards=epsilons or int(clean), gradients=min(epsilons, 1))

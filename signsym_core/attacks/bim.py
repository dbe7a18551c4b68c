"""The basic iterative method: FGSM in small steps, from the clean image."""

from __future__ import annotations

import dataclasses

from signsym_core.attacks.steepest import SteepestAscent


@dataclasses.dataclass(frozen=True, kw_only=True)
class BIM(SteepestAscent):
    """x₀ = x; xₜ₊₁ = Π(xₜ + α · sign(∇ L(xₜ))), with Π the projection to the ball and to [0, 1].

    In L2 the step is α · ∇ L / |∇ L|. The defaults are those of Foolbox's LinfBasicIterativeAttack and
    L2BasicIterativeAttack: 10 steps of ε / 5, no random start.
    """

    name = "bim"
    label = "BIM"
    citation = "Kurakin, Goodfellow, Bengio 2017, Adversarial examples in the physical world, arXiv 1607.02533"

    steps: int = 10
    random_start: bool = False

    def usual_step(self) -> float:
        return 0.2

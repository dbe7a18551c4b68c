"""Projected gradient descent in L∞: steps along the sign of the gradient, back into the ball after each."""

from __future__ import annotations

import dataclasses

from signsym_core.attacks.signsteps import SignSteps


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(SignSteps):
    """x₀ = x + U(-ε, ε); xₜ₊₁ = Π(xₜ + α · sign(∇ L(xₜ))), with Π the projection to the ball and to [0, 1].

    The step α is `step_size` (in pixels of [0, 1]) or `relative_step` · ε; by default 2.5 · ε / `steps`, Madry's
    rule of thumb. Foolbox's default of ε / 30 cannot reach the border of the ball in fewer than 30 steps. The random
    start is drawn once and scaled by each epsilon, so a result never depends on the other epsilons of the call: it is
    that of Foolbox with its seed set before each epsilon.
    """

    name = "pgd"
    label = "PGD"
    citation = "Madry et al. 2018, Towards deep learning models resistant to adversarial attacks, arXiv 1706.06083"

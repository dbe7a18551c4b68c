"""Projected gradient descent: steps along the gradient, or in L∞ its sign, back into the ball after each."""

from __future__ import annotations

import dataclasses

from signsym_core.attacks.steepest import SteepestAscent


@dataclasses.dataclass(frozen=True, kw_only=True)
class PGD(SteepestAscent):
    """x₀ = x + U(-ε, ε); xₜ₊₁ = Π(xₜ + α · sign(∇ L(xₜ))), with Π the projection to the ball and to [0, 1].

    In L2 the start is uniform in the ball and the step is α · ∇ L / |∇ L|. α is `step_size` (in pixels of [0, 1]) or
    `relative_step` · ε; by default 2.5 · ε / `steps`, Madry's rule of thumb. Foolbox's defaults, ε / 30 and in L2
    ε / 40, cannot reach the border of the ball in fewer steps. The random start is drawn once and scaled by each
    epsilon, so a result never depends on the other epsilons of the call: in L∞ it is that of Foolbox with its seed set
    before each epsilon.
    """

    name = "pgd"
    label = "PGD"
    citation = "Madry et al. 2018, Towards deep learning models resistant to adversarial attacks, arXiv 1706.06083"

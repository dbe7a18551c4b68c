"""The momentum iterative method: steps along a running sum of normalised gradients."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from signsym_core.attacks.ball import column
from signsym_core.attacks.steepest import SteepestAscent
from signsym_core.registry import NonNegative


@dataclasses.dataclass(frozen=True, kw_only=True)
class MIM(SteepestAscent):
    """gₜ₊₁ = μ · gₜ + ∇ L(xₜ) / ‖∇ L(xₜ)‖₁; xₜ₊₁ = Π(xₜ + α · sign(gₜ₊₁)): equations 6 and 7, from the clean image.

    In L2 the step is α · gₜ₊₁ / ‖gₜ₊₁‖₂. Defaults of the paper: 10 steps of ε / 10, μ = 1. All gradients have equal
    weight, although a learning rule or a confident model changes their size; Foolbox's L∞ variant sums them without
    normalisation.
    """

    name = "mim"
    label = "MIM"
    citation = "Dong et al. 2018, Boosting adversarial attacks with momentum, arXiv 1710.06081, equations 6 and 7"

    steps: int = 10
    random_start: bool = False
    #: Share of the running sum that each step keeps: μ.
    momentum: NonNegative = 1.0

    def accumulated(self, total: Tensor | None, direction: Tensor) -> Tensor:
        norms = column(direction.abs().flatten(1).sum(dim=1), direction)
        # An image without a gradient adds nothing.
        added = direction / norms.clamp(min=1e-30)
        return added if total is None else self.momentum * total + added

    def usual_step(self) -> float:
        return 1 / self.steps

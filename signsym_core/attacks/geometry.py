"""The loss around each image: how steep, how straight, and how near an attack's gradient is to the exact one.

Legend: n images x, L the cross-entropy, g* its exact gradient at x, g the gradient that the attack follows.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from signsym_core.attacks.ball import direction, representable, within_ball
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.problem import Problem, Told
from signsym_core.tasks.classification import cross_entropy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry(Attack):
    """x' = x + ε · sign(g), which is FGSM, and for each image what decides whether such a step succeeds.

    `grad_l1` and `grad_l2` are |g*|₁ and |g*|₂, loss over [0, 1] pixels. L1 is the dual of L∞: a loss that were linear
    would rise by ε |g*|₁. `cosine` is <g, g*> / (|g| |g*|), NaN where one of both is 0, and `sign_agreement` the share
    of pixels where sign(g) = sign(g*), which is all that a sign step takes of g. `rise` is L(x + δ) - L(x) at the step
    δ = clip(x + ε · sign(g*), 0, 1) - x of FGSM along g*, and `linearity` the error of its first-order prediction,
    |L(x + δ) - L(x) - <δ, g*>|: the measure of Qin et al., which they take at the worst δ of the ball. Both are about
    the model, not about g.

    An image that is made on a surrogate is not measured: g and the model are then of two networks.
    """

    name = "geometry"
    label = "geometry"
    citation = (
        "Qin et al. 2019, Adversarial robustness through local linearization, arXiv 1907.02610, equation 4; "
        "Simon-Gabriel et al. 2019, First-order adversarial vulnerability, arXiv 1802.01421, for the dual norm"
    )
    tags = frozenset({"white-box", "linf"})
    measuring = True
    measures = ("grad_l1", "grad_l2", "cosine", "sign_agreement", "rise", "linearity")

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        followed = problem.clean_gradient
        if problem.judges:
            problem.told = Told(measured=self._measured(problem, followed, epsilon))
        return problem.images + epsilon * followed.sign()

    def _measured(self, problem: Problem, followed: Tensor, epsilon: float) -> Tensor:
        """float64 [n, measures]."""
        images = problem.images
        exact, clean = problem.once(self, _exact)
        moved = within_ball(images, images + epsilon * exact.sign(), epsilon)
        moved = representable(images, moved, problem.attacked.dtype)
        along, true = (direction(gradient)[0].double().flatten(1) for gradient in (followed, exact))
        gradient, change = exact.double().flatten(1), (moved.double() - images.double()).flatten(1)
        rise = cross_entropy(problem.outputs(moved), problem.labels).double() - clean.double()
        known = along.any(dim=1) & true.any(dim=1)
        measured = {
            "grad_l1": gradient.abs().sum(dim=1),
            "grad_l2": torch.linalg.vector_norm(gradient, dim=1),
            "cosine": torch.where(known, (along * true).sum(dim=1).clamp(-1, 1), torch.nan),
            "sign_agreement": (followed.sign() == exact.sign()).flatten(1).double().mean(dim=1),
            "rise": rise,
            "linearity": (rise - (change * gradient).sum(dim=1)).abs(),
        }
        return torch.stack([measured[name] for name in self.measures], dim=1)

    def steps_taken(self) -> int:
        return 1

    def step(self, epsilon: float) -> float:
        return epsilon

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # The pass of the gradient has the clean outputs too.
        return Cost(forwards=epsilons or int(clean), gradients=min(epsilons, 1))

    def cost_of_measures(self, epsilons: int) -> Cost:
        return Cost(forwards=epsilons, gradients=min(epsilons, 1))


def _exact(problem: Problem) -> tuple[Tensor, Tensor]:
    """The exact gradient of each image's cross-entropy, and the cross-entropy [n]."""

    def loss(outputs: Tensor, places: Tensor) -> Tensor:
        return cross_entropy(outputs, problem.labels[places]).sum()

    gradient, outputs = problem.gradient_and_outputs(loss, problem.images, exact=True)
    return gradient, cross_entropy(outputs, problem.labels)

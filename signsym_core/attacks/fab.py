"""FAB: steps onto the linearised decision boundary towards another class, biased towards the clean image."""

from __future__ import annotations

import dataclasses
import math

import torch
from torch import Tensor

from signsym_core.attacks.ball import sizes
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.margins import gap, runners_up
from signsym_core.attacks.problem import Problem
from signsym_core.registry import require

#: Overshoot η of a step, largest share α of the clean image in it, and the factor β that shortens a successful change.
_OVERSHOOT, _MOST_BIAS, _BACKWARD = 1.05, 0.1, 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAB(Attack):
    """xₜ₊₁ = (1 - α)(xₜ + η δ(xₜ)) + α (x + η δ(x)), clipped to [0, 1]; δ the smallest L∞ change, within [0, 1], onto
    the plane where the linearised logits of the label and of a target are equal. Where xₜ₊₁ is lost, the nearest such
    image is kept and the walk goes on from x + β (xₜ₊₁ - x).

    The targeted version of AutoAttack: each of the `targets` next likely classes in turn, from the clean image, without
    restarts. It minimises the perturbation, so one run serves every epsilon; it follows only the directions of logits
    and needs no step size. An image without an adversarial example stays unchanged.
    """

    name = "fab"
    label = "FAB-T"
    citation = "Croce, Hein 2020, Minimally distorted adversarial examples with FAB, arXiv 1907.02044, algorithm 1"
    tags = frozenset({"white-box", "linf"})

    #: Steps towards each target.
    steps: int = 100
    #: Number of target classes.
    targets: int = 9

    def __post_init__(self) -> None:
        require(self.steps >= 1, "steps", "a whole number, at least 1", self.steps)
        require(self.targets >= 1, "targets", "a whole number, at least 1", self.targets)

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        (images,) = problem.once(self, self.minimise)
        return images

    def minimise(self, problem: Problem) -> tuple[Tensor]:
        """The nearest adversarial images."""
        alive = problem.task.score(problem.clean_outputs, problem.labels, problem.gallery) > 0
        nearest, subset = problem.images.clone(), problem.only(alive)
        if len(subset.images):
            targets = runners_up(subset.clean_outputs, subset.labels, self.targets)
            best, least = subset.images, torch.full_like(subset.images.flatten(1)[:, 0], math.inf)
            # As many targets at once as one pass has room for: a batch of few images leaves a device idle.
            for group in targets.split(max(1, problem.micro_batch // len(subset.images)), dim=1):
                walks = self._walk(subset.copies(group.shape[1]), group.t().flatten())
                pieces = (tensor.split(len(best)) for tensor in walks)
                for images, distances in zip(*pieces, strict=True):
                    nearer = distances < least
                    best = torch.where(nearer.view(-1, *[1] * (best.ndim - 1)), images, best)
                    least = torch.where(nearer, distances, least)
            nearest[alive] = best
        return (nearest,)

    def _walk(self, problem: Problem, target: Tensor) -> tuple[Tensor, Tensor]:
        """Towards the classes `target`: the nearest lost images and their distances, infinite where there is none."""
        clean, labels = problem.images, problem.labels
        x, current = clean.flatten(1), clean.flatten(1)
        best, least = clean, torch.full_like(x[:, 0], math.inf)

        def total(outputs: Tensor, places: Tensor) -> Tensor:
            return gap(outputs, labels[places], target[places]).sum()

        for _ in range(self.steps):
            slope, outputs = problem.gradient_and_outputs(total, current.view_as(clean))
            slope, missing = slope.flatten(1), -gap(outputs, labels, target)
            from_current = onto_plane(current, slope, missing)
            from_clean = onto_plane(x, slope, missing + (slope * (current - x)).sum(dim=1))
            far, near = (change.abs().amax(dim=1).clamp(min=1e-8) for change in (from_current, from_clean))
            bias = (far / (far + near)).clamp(max=_MOST_BIAS)[:, None]
            ahead = (1 - bias) * (current + _OVERSHOOT * from_current) + bias * (x + _OVERSHOOT * from_clean)
            current = ahead.clamp(0, 1)
            scores = problem.scores(current.view_as(clean))
            distances = sizes(current - x).to(least.dtype)
            nearer = (scores == 0) & (distances < least)
            best = torch.where(nearer.view(-1, *[1] * (clean.ndim - 1)), current.view_as(clean), best)
            least = torch.where(nearer, distances, least)
            current = torch.where((scores == 0)[:, None], x + _BACKWARD * (current - x), current)
        return best, least

    def steps_taken(self) -> int:
        return self.steps * self.targets

    def step(self, epsilon: float) -> float:
        """NaN: the step length is the distance to the boundary."""
        return math.nan

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # A walk for all epsilons, which looks at the image after each step.
        steps = self.steps_taken() if epsilons else 0
        return Cost(forwards=1 + steps + epsilons, gradients=steps)


def onto_plane(x: Tensor, slope: Tensor, missing: Tensor) -> Tensor:
    """The change δ [n, pixels] of least L∞ norm with w · δ = c and 0 ≤ x + δ ≤ 1, for the slopes w and c = `missing`.

    Every pixel moves by t along sign(c w), or as far as [0, 1] lets it; Σ |w| min(t, room) = |c| grows with t in
    straight pieces between the sorted rooms. Where the box holds no such point all pixels go as far as they can.
    """
    direction = slope.sign() * missing.sign()[:, None]
    room = torch.where(direction > 0, 1 - x, x)
    ordered, order = room.sort(dim=1)
    weights = slope.abs().gather(1, order)
    spent = (weights * ordered).cumsum(dim=1)
    moving = weights.sum(dim=1, keepdim=True) - weights.cumsum(dim=1)
    reached = spent + moving * ordered
    # The first room at which enough is gained; those before it are used up.
    first = (reached < missing.abs()[:, None]).sum(dim=1, keepdim=True)
    last = (first - 1).clamp(min=0)
    used = torch.where(first > 0, spent.gather(1, last), 0.0)
    left = torch.where(first > 0, moving.gather(1, last), weights.sum(dim=1, keepdim=True))
    length = (missing.abs()[:, None] - used) / left.clamp(min=1e-30)
    length = torch.where(first == x.shape[1], ordered[:, -1:], length)
    return direction * torch.minimum(length.clamp(min=0), room)

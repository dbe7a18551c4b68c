"""FAB: steps onto the linearised decision boundary towards another class, biased towards the clean image."""

from __future__ import annotations

import dataclasses
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from signsym_core.attacks.ball import Norm, column, sizes
from signsym_core.attacks.base import Cost, NormedAttack
from signsym_core.attacks.margins import gap, runners_up
from signsym_core.attacks.problem import Problem
from signsym_core.registry import Count

#: Overshoot η of a step, largest share α of the clean image in it, and the factor β that shortens a successful change.
_OVERSHOOT, _MOST_BIAS, _BACKWARD = 1.05, 0.1, 0.9


@dataclasses.dataclass(frozen=True, kw_only=True)
class FAB(NormedAttack):
    """xₜ₊₁ = (1 - α)(xₜ + η δ(xₜ)) + α (x + η δ(x)), clipped to [0, 1]; δ the smallest change, in L∞ or L2 and within
    [0, 1], onto the plane where the linearised logits of the label and of a target are equal. Where xₜ₊₁ is lost, the
    nearest such image is kept and the walk goes on from x + β (xₜ₊₁ - x).

    The targeted version of AutoAttack: each of the `targets` next likely classes in turn, from the clean image, without
    restarts. It minimises the perturbation, so one run serves every epsilon; it follows only the directions of logits
    and needs no step size. An image without an adversarial example stays unchanged.
    """

    name = "fab"
    label = "FAB-T"
    citation = "Croce, Hein 2020, Minimally distorted adversarial examples with FAB, arXiv 1907.02044, algorithm 1"
    tags = frozenset({"white-box"})

    #: Steps towards each target.
    steps: Count = 100
    #: Number of target classes.
    targets: Count = 9

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
                    best = torch.where(column(nearer, best), images, best)
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
            from_current = onto_plane(current, slope, missing, self.norm)
            from_clean = onto_plane(x, slope, missing + (slope * (current - x)).sum(dim=1), self.norm)
            far, near = (self._size(change).clamp(min=1e-8) for change in (from_current, from_clean))
            bias = (far / (far + near)).clamp(max=_MOST_BIAS)[:, None]
            ahead = (1 - bias) * (current + _OVERSHOOT * from_current) + bias * (x + _OVERSHOOT * from_clean)
            current = ahead.clamp(0, 1)
            scores = problem.scores(current.view_as(clean))
            distances = self._size(current - x)
            nearer = (scores == 0) & (distances < least)
            best = torch.where(column(nearer, clean), current.view_as(clean), best)
            least = torch.where(nearer, distances, least)
            current = torch.where((scores == 0)[:, None], x + _BACKWARD * (current - x), current)
        return best, least

    def _size(self, change: Tensor) -> Tensor:
        return sizes(change, self.norm).to(change.dtype)

    def parts(self) -> frozenset[str]:
        # It follows logits.
        return frozenset()

    def steps_taken(self) -> int:
        return self.steps * self.targets

    def step(self, epsilon: float) -> float:
        """NaN: the step length is the distance to the boundary."""
        return math.nan

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # A walk for all epsilons, which looks at the image after each step.
        steps = self.steps_taken() if epsilons else 0
        return Cost(forwards=1 + steps + epsilons, gradients=steps)


def onto_plane(x: Tensor, slope: Tensor, missing: Tensor, norm: Norm = "linf") -> Tensor:
    """The change δ [n, pixels] of least size with w · δ = c and 0 ≤ x + δ ≤ 1, for the slopes w and c = `missing`.

    Every pixel moves along sign(c w) by t, in L2 by t |w|, or as far as [0, 1] lets it; what is gained, Σ |w| |δ|,
    grows with t in straight pieces between the sorted times at which pixels stop. Where the box holds no such point all
    pixels go as far as they can.
    """
    direction = slope.sign() * missing.sign()[:, None]
    room = torch.where(direction > 0, 1 - x, x)
    gain, goal, speed = slope.abs(), missing.abs()[:, None], torch.ones_like(slope)
    if norm == "l2":
        # The plane is the same for slopes of any size; squares of small ones leave float32.
        largest = gain.amax(dim=1, keepdim=True)
        largest = torch.where(largest > 0, largest, 1.0)
        gain, goal = gain / largest, goal / largest
        speed = gain
    stops, order = torch.where(speed > 0, room / speed, 0.0).sort(dim=1)
    weights, rates = gain.gather(1, order), (gain * speed).gather(1, order)
    spent = (weights * room.gather(1, order)).cumsum(dim=1)
    total = rates.sum(dim=1, keepdim=True)
    moving = total - rates.cumsum(dim=1)
    if norm == "l2":
        # Rates differ by many powers of ten: a difference of sums would be rounding alone.
        moving = F.pad(rates[:, 1:].flip(1).cumsum(dim=1).flip(1), (0, 1))
    reached = spent + moving * stops
    # The first stop at which enough is gained; the pixels before it are at their bounds.
    first = (reached < goal).sum(dim=1, keepdim=True)
    last = (first - 1).clamp(min=0)
    used = torch.where(first > 0, spent.gather(1, last), 0.0)
    left = torch.where(first > 0, moving.gather(1, last), total)
    time = (goal - used) / left.clamp(min=1e-30)
    time = torch.where(first == x.shape[1], stops[:, -1:], torch.minimum(time.clamp(min=0), stops[:, -1:]))
    return direction * torch.minimum(time * speed, room)

"""APGD: projected gradient descent that halves its step where the loss no longer rises and keeps the best iterate."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch import Tensor

from signsym_core.attacks.ball import column, projected, steepest, within_ball
from signsym_core.attacks.base import Cost, NormedAttack
from signsym_core.attacks.margins import dlr, runners_up, targeted_dlr
from signsym_core.attacks.problem import Problem
from signsym_core.registry import Count, integer
from signsym_core.tasks.classification import cross_entropy

#: A loss of each image, to be maximised: (outputs of some images, their positions in the block) to [n].
ImageLoss = Callable[[Tensor, Tensor], Tensor]

#: Weight of the new step against the momentum α, and share of rising steps ρ below which the step is halved.
_STEP_WEIGHT, _RISING = 0.75, 0.75


@dataclasses.dataclass(frozen=True, kw_only=True)
class APGD(NormedAttack):
    """zₜ₊₁ = Π(xₜ + η · sign ∇L(xₜ)); xₜ₊₁ = Π(xₜ + α (zₜ₊₁ - xₜ) + (1 - α) (xₜ - xₜ₋₁)), with η = 2ε at first.

    At checkpoints with shrinking distances, an image whose loss rose in too few steps (condition 1), or whose best loss
    and step have not changed since the last checkpoint (condition 2), returns to its best iterate with half the step.
    There is nothing to tune. An image that is lost already is left unchanged; a restart attacks the remaining images.
    The result for an image is a lost iterate, or else the iterate with the highest loss. The start is uniform in the
    ball. In L2 the step is η · ∇L / |∇L|.

    `loss` is "ce", the cross-entropy; "dlr", the difference of logits ratio, which scaled-up logits do not fool; or
    "targeted-dlr", towards each of the `targets` next likely classes in turn. The two need three and four classes.
    """

    name = "apgd"
    label = "APGD"
    citation = "Croce, Hein 2020, Reliable evaluation of adversarial robustness, arXiv 2003.01690, algorithm 1"
    tags = frozenset({"white-box", "random"})
    goes_on = True

    steps: Annotated[int, integer(2)] = 100
    loss: Literal["ce", "dlr", "targeted-dlr"] = "ce"
    #: Runs, each from another random start.
    restarts: Count = 1
    #: Number of target classes, only for the targeted loss.
    targets: Count = 9

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        best, alive = problem.images, problem.alive
        starts = self._starts(problem)
        losses = torch.full((len(best),), -math.inf, dtype=torch.float64, device=best.device)
        target_classes = None
        if self.loss == "targeted-dlr":
            target_classes = runners_up(problem.clean_outputs, problem.labels, self.targets)
        for number in range(self.restarts * (1 if target_classes is None else target_classes.shape[1])):
            places = alive.nonzero().flatten()
            if len(places) == 0:
                break
            subset = problem.only(alive)
            target = None if target_classes is None else target_classes[places, number % target_classes.shape[1]]
            start = (subset.images + epsilon * starts(places, number)).clamp(0, 1)
            if subset.start is not None and number == 0:
                start = subset.start
            candidates, lost, loss = self._run_once(subset, self._image_loss(subset, target), start, epsilon)
            # Losses for different targets cannot be compared: a later target counts only where it wins.
            better = lost | (loss > losses[places]) if target is None else lost | losses[places].isinf()
            best = best.index_copy(0, places[better], candidates[better])
            losses[places[better]] = loss[better]
            alive = alive.index_copy(0, places, ~lost)
        return best

    def _starts(self, problem: Problem) -> Callable[[Tensor, int], Tensor]:
        """The first change of images at some places in a run of some number, uniform in the ball of radius 1."""
        shape = problem.images.shape[1:]
        if self.norm == "l2":
            counted = problem.counted
            return lambda places, number: counted.in_ball(places, number, shape)
        streams = problem.streams
        return lambda places, _: 2 * streams.uniform(places, *shape) - 1

    def _image_loss(self, problem: Problem, target: Tensor | None) -> ImageLoss:
        labels = problem.labels
        if target is not None:
            return lambda outputs, places: targeted_dlr(outputs, labels[places], target[places])
        if self.loss == "dlr":
            return lambda outputs, places: dlr(outputs, labels[places])
        return lambda outputs, places: cross_entropy(outputs, labels[places])

    def _run_once(
        self, problem: Problem, image_loss: ImageLoss, start: Tensor, epsilon: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        """From `start`: the kept iterates, whether they are lost, and their losses float64 [n]."""
        images = problem.images
        everywhere = torch.arange(len(images), device=images.device)

        def total(outputs: Tensor, places: Tensor) -> Tensor:
            return image_loss(outputs, places).sum()

        def look(point: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            gradient, outputs = problem.gradient_and_outputs(total, point)
            return gradient, image_loss(outputs, everywhere).double(), problem.lost(outputs)

        previous = current = within_ball(images, start, epsilon, self.norm)
        gradient, loss, lost = look(current)
        best, best_gradient, best_loss = current, gradient, loss
        kept, kept_loss, kept_lost = current, loss, lost
        step = torch.full_like(loss, 2 * epsilon).to(images.dtype)
        rises = torch.zeros_like(loss)
        halved, checked_loss = torch.ones_like(lost), best_loss
        checkpoints, last = _checkpoints(self.steps), 0
        for number in range(1, self.steps + 1):
            weight = _STEP_WEIGHT if number > 1 else 1.0
            moved = current + column(step, images) * steepest(gradient, self.norm)
            ahead = projected(images, moved, epsilon, self.norm)
            ahead = current + weight * (ahead - current) + (1 - weight) * (current - previous)
            previous, current = current, projected(images, ahead, epsilon, self.norm)
            before = loss
            gradient, loss, lost = look(current)
            rises += loss > before
            better = loss > best_loss
            best = torch.where(column(better, images), current, best)
            best_gradient = torch.where(column(better, images), gradient, best_gradient)
            best_loss = torch.where(better, loss, best_loss)
            # Lost iterates are preferred to others, then higher losses to lower ones.
            keep = (lost & ~kept_lost) | ((lost == kept_lost) & (loss > kept_loss))
            kept = torch.where(column(keep, images), current, kept)
            kept_loss, kept_lost = torch.where(keep, loss, kept_loss), kept_lost | lost
            if number in checkpoints:
                stuck = (rises <= _RISING * (number - last)) | (~halved & (checked_loss >= best_loss))
                step = torch.where(stuck, step / 2, step)
                current = torch.where(column(stuck, images), best, current)
                gradient = torch.where(column(stuck, images), best_gradient, gradient)
                halved, checked_loss, last = stuck, best_loss, number
                rises = torch.zeros_like(rises)
        return kept, kept_lost, kept_loss

    def parts(self) -> frozenset[str]:
        return frozenset({"cross-entropy" if self.loss == "ce" else "dlr"})

    def steps_taken(self) -> int:
        return self.steps * self.restarts * (self.targets if self.loss == "targeted-dlr" else 1)

    def step(self, epsilon: float) -> float:
        """The first step; later ones are shorter."""
        return 2 * epsilon

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # A run looks at its start too; the clean outputs say which images are lost already.
        runs = self.steps_taken() // self.steps
        return Cost(forwards=1 + epsilons, gradients=epsilons * (self.steps_taken() + runs))


def _checkpoints(steps: int) -> frozenset[int]:
    """Steps after which the step size is checked: after 22 % of them, then after 3 % fewer each time, at least 6 %."""
    span, shrink, least = max(int(0.22 * steps), 1), max(int(0.03 * steps), 1), max(int(0.06 * steps), 1)
    checkpoints, step = [], 0
    while step + span <= steps:
        step += span
        checkpoints.append(step)
        span = max(span - shrink, least)
    return frozenset(checkpoints)

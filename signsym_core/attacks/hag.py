"""HAG: pushes a query's code away from its clean code, without labels.

Legend: n queries, K bits; f(x) outputs [n, K]; h = tanh(a · f(x)), a smooth code; h⁰ the same at the clean image.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Annotated

import torch
from torch import Tensor

from signsym_core.attacks.ball import projected
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.problem import Problem
from signsym_core.attacks.steepest import SteepestAscent
from signsym_core.registry import Bound, Count, NonNegative, Positive, within

_CITATION = "Yang et al. 2018, Adversarial Examples for Hamming Space Search; as re-implemented by Yuan et al. 2023"


def hag_loss(smooth: Tensor, clean: Tensor, margin: float, balance: float) -> Tensor:
    """[n]: (Σₖ wₖ hₖ h⁰ₖ / m + 1)² + β (meanₖ wₖ hₖ)², with wₖ = 1 for bits not yet flipped and m = Σₖ wₖ.

    A bit counts as flipped when hₖ sign(h⁰ₖ) < -`margin`. The loss is least where the code is the opposite one.
    """
    kept = (smooth.detach() * clean.sign() > -margin).to(smooth.dtype)
    agreement = (kept * smooth * clean).sum(dim=1) / (kept.sum(dim=1) + 1e-8)
    return (agreement + 1).square() + balance * (kept * smooth).mean(dim=1).square()


def slopes(outputs: Tensor, scale: float) -> Tensor:
    """a [n, 1] = `scale` over the median of an image's |f(x)|: a saturated tanh has no gradient, so a fits the outputs.

    Sign-symmetric fine-tuning and the HyP² loss leave the size of outputs free.
    """
    median = outputs.abs().median(dim=1, keepdim=True).values
    return scale / torch.where(median > 0, median, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HAG(SteepestAscent):
    """Steps that lower `hag_loss`, from a random start, scored by the code of the last image.

    Unlike the published optimiser (see `hag-saat`) the steps depend neither on the gradient's size, which a learning
    rule changes by factors, nor on the batch.
    """

    name = "hag"
    label = "HAG"
    citation = _CITATION
    tasks = frozenset({"hashing"})

    #: A bit is left alone once its smooth code is beyond the margin on the other side.
    margin: Annotated[float, within("[0, 1)")] = 0.5
    #: Weight of the term that balances the bits.
    balance: NonNegative = 1.0
    #: Slope of the tanh where an output is as large as the image's median.
    slope: Positive = 1.0

    def direction(self, problem: Problem, current: Tensor) -> Tensor:
        slope = slopes(problem.clean_outputs, self.slope)
        clean = torch.tanh(slope * problem.clean_outputs)

        def loss(outputs: Tensor, places: Tensor) -> Tensor:
            smooth = torch.tanh(slope[places] * outputs)
            return hag_loss(smooth, clean[places], self.margin, self.balance).sum()

        return -problem.gradient_of(loss, current)

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # The loss compares with the clean outputs.
        return Attack.cost(self, epsilons, clean=True)


#: Steps of the published recipe.
Steps = Annotated[int, Bound("a whole number, at least 2: the last step is not scored", lambda steps: steps >= 2)]
#: tanh's slope over ten equal parts of the iterations.
SCHEDULE = (0.1, 0.1, 0.1, 0.1, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class HAGSAAT(Attack):
    """HAG by the recipe of the code that published both attacks: SGD with momentum on the raw gradient.

    Kept to compare with published curves, which it distorts: the same network with its gradient divided by ten is
    "robust" at every epsilon, and the scored code is that of the image before the last step.
    """

    name = "hag-saat"
    label = "HAG (SAAT)"
    citation = "Yuan et al. 2023, Semantic-Aware Adversarial Training for Reliable Deep Hashing Retrieval"
    tags = frozenset({"white-box", "linf"})
    tasks = frozenset({"hashing"})

    steps: Steps = 5
    lr: Positive = 100.0
    momentum: Annotated[float, within("[0, 1)")] = 0.9
    margin: float = 0.5
    balance: float = 1.0
    #: The loss is a mean over so many images, so more images make shorter steps.
    batch: Count = 32

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        images = problem.images
        clean = torch.tanh(problem.clean_outputs)
        current, velocity = images, torch.zeros_like(images)
        for slope in schedule(self.steps):

            def loss(outputs: Tensor, places: Tensor, slope: float = slope) -> Tensor:
                smooth = torch.tanh(slope * outputs)
                return hag_loss(smooth, clean[places], self.margin, self.balance).sum() / self.batch

            velocity = self.momentum * velocity + problem.gradient_of(loss, current)
            moved = current - self.lr * velocity
            current = projected(images, moved, epsilon)
        return current

    def steps_taken(self) -> int:
        return self.steps - 1

    def step(self, epsilon: float) -> float:
        """NaN: the step length depends on the gradient."""
        return math.nan

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # The loss compares with the clean outputs.
        return super().cost(epsilons, clean=True)


def schedule(steps: int) -> list[float]:
    """tanh's slope in each step whose result is scored: all but the last of `steps`."""
    return [SCHEDULE[len(SCHEDULE) * step // steps] for step in range(steps - 1)]

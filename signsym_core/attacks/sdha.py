"""SDHA: pushes a query's code away from the codes of the training images that share a label with it.

Legend: n queries, T training images, K bits; q = tanh(a · f(x)) smooth codes [n, K]; r codes [T, K] of -1 and +1.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from signsym_core.attacks.ball import projected
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.hag import Steps, schedule, slopes
from signsym_core.attacks.problem import Problem
from signsym_core.attacks.steepest import SteepestAscent
from signsym_core.registry import Count, NonNegative, Positive
from signsym_core.retrieval.codes import Codes, signs
from signsym_core.retrieval.ranking import relevance

_CITATION = "Lu et al. 2021, Smart Adversarial Attack on Deep Hashing Retrieval; as re-implemented by Yuan et al. 2023"


def sdha_distance(smooth: Tensor, labels: Tensor, train: Codes, sharpness: float, power: float) -> Tensor:
    """[n]: (25 / K) meanᵣ [w(q, r) Σₖ (|qₖ - rₖ| / 2 · sₖ + 1 - sₖ)], with sₖ = sigmoid(σ qₖ rₖ): to be raised.

    r runs over the training images that share a label with the query, or is the query's code where there is none. An
    agreeing bit contributes its distance, a flipped one about 1 without a gradient. Near images have larger weights,
    w(q, r) = (d_H(sign q, r) + 1e-8)^-z, which are constants for the gradient. σ is `sharpness`, z is `power`.
    """
    bits, query_codes = smooth.shape[1], signs(smooth.detach()).to(smooth.dtype)
    codes = train.signs.to(smooth.dtype)
    distances = ((bits - query_codes @ codes.T) / 2).clamp(min=0)
    weights = (distances + 1e-8).pow(-power) * relevance(labels, train.labels)
    relevant_count = relevance(labels, train.labels).sum(dim=1, keepdim=True)
    # A bit of r is +1 or -1, so a query needs only the total weight of each of the two values, bit by bit.
    above = weights @ (codes > 0).to(smooth.dtype)
    below = weights @ (codes < 0).to(smooth.dtype)
    lonely = relevant_count == 0
    own_weight = 1e-8**-power
    above = torch.where(lonely, own_weight * (query_codes > 0), above) / relevant_count.clamp(min=1)
    below = torch.where(lonely, own_weight * (query_codes < 0), below) / relevant_count.clamp(min=1)
    return 25 / bits * (above * _apart(smooth, 1, sharpness) + below * _apart(smooth, -1, sharpness)).sum(dim=1)


def _apart(smooth: Tensor, bit: int, sharpness: float) -> Tensor:
    agreeing = torch.sigmoid(sharpness * bit * smooth)
    return (smooth - bit).abs() / 2 * agreeing + 1 - agreeing


@dataclasses.dataclass(frozen=True, kw_only=True)
class SDHA(SteepestAscent):
    """Steps that raise `sdha_distance`, from a random start, scored by the code of the last image.

    The published loss has a term that keeps the image near the clean one; here the ball does that.
    """

    name = "sdha"
    label = "SDHA"
    citation = _CITATION
    tasks = frozenset({"hashing"})

    #: Sharpness of the transition at which a flipped bit stops to count: σ.
    sharpness: Positive = 5.0
    #: Exponent of the weights of near images: z.
    power: NonNegative = 0.5
    #: Slope of the tanh where an output is as large as the image's median.
    slope: Positive = 1.0

    def direction(self, problem: Problem, current: Tensor) -> Tensor:
        assert problem.gallery is not None
        slope, train = slopes(problem.clean_outputs, self.slope), problem.gallery.train

        def loss(outputs: Tensor, places: Tensor) -> Tensor:
            smooth = torch.tanh(slope[places] * outputs)
            return sdha_distance(smooth, problem.labels[places], train, self.sharpness, self.power).sum()

        return problem.gradient_of(loss, current)

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # The loss is scaled by the clean outputs.
        return Attack.cost(self, epsilons, clean=True)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SDHASAAT(Attack):
    """SDHA by the recipe of the code that published both attacks: Adam of rate 0.01 on the pixels, with MSE.

    Kept to compare with published curves: so few steps of 0.01 cannot reach the border of a ball beyond their sum, and
    the scored code is that of the image before the last step.
    """

    name = "sdha-saat"
    label = "SDHA (SAAT)"
    citation = "Yuan et al. 2023, Semantic-Aware Adversarial Training for Reliable Deep Hashing Retrieval"
    tags = frozenset({"white-box", "linf"})
    tasks = frozenset({"hashing"})

    steps: Steps = 5
    lr: Positive = 0.01
    sharpness: Positive = 5.0
    power: NonNegative = 0.5
    #: The loss is a mean over so many images; it matters because of Adam's small constant.
    batch: Count = 32

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        assert problem.gallery is not None
        images, train = problem.images, problem.gallery.train
        current, first, second = images, torch.zeros_like(images), torch.zeros_like(images)
        pixels = images[0].numel()
        for number, slope in enumerate(schedule(self.steps), 1):

            def loss(outputs: Tensor, places: Tensor, slope: float = slope) -> Tensor:
                smooth = torch.tanh(slope * outputs)
                return sdha_distance(smooth, problem.labels[places], train, self.sharpness, self.power).sum()

            away = problem.gradient_of(loss, current)
            gradient = (2 * (current - images) / pixels - away) / self.batch
            first = 0.9 * first + 0.1 * gradient
            second = 0.999 * second + 0.001 * gradient.square()
            scale = (second / (1 - 0.999**number)).sqrt() + 1e-8
            moved = current - self.lr * first / (1 - 0.9**number) / scale
            current = projected(images, moved, epsilon)
        return current

    def steps_taken(self) -> int:
        return self.steps - 1

    def step(self, epsilon: float) -> float:
        """Adam's rate, which is nearly always the longest step."""
        return self.lr

"""Uniform noise: the null attack, which every real attack must beat."""

from __future__ import annotations

import dataclasses

from torch import Tensor

from signsym_core.attacks.ball import within_ball
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.problem import Problem
from signsym_core.registry import require


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(Attack):
    """x' = x + U(-ε, ε); with several `draws`, the one with the lowest score.

    Robustness that noise breaks and a gradient does not is masked (Carlini et al. 2019 recommend 10,000 draws). There
    are no further draws for a lost image.
    """

    name = "noise"
    label = "noise"
    citation = "Carlini et al. 2019, On evaluating adversarial robustness, arXiv 1902.06705, section 4.3"
    tags = frozenset({"linf", "random"})
    tasks = frozenset({"classification", "hashing"})

    draws: int = 1

    def __post_init__(self) -> None:
        require(self.draws >= 1, "draws", "a whole number, at least 1", self.draws)

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        assert problem.noise is not None
        images = problem.images
        best = within_ball(images, images + (2 * problem.noise - 1) * epsilon, epsilon)
        if self.draws == 1:
            return best
        scores, streams = problem.scores(best), problem.streams
        for _ in range(self.draws - 1):
            alive = scores > 0
            if not alive.any():
                break
            places = alive.nonzero().flatten()
            subset = problem.only(alive)
            noise = 2 * streams.uniform(places, *images.shape[1:]) - 1
            candidates = within_ball(subset.images, subset.images + noise * epsilon, epsilon)
            new_scores = subset.scores(candidates)
            better = new_scores < scores[alive]
            best = best.index_copy(0, places[better], candidates[better])
            scores = scores.index_copy(0, places[better], new_scores[better])
        return best

    def cost(self, epsilons: int, clean: bool) -> Cost:
        draws = self.draws if self.draws > 1 else 0
        return Cost(forwards=epsilons * (1 + draws) + clean, gradients=0)

"""Uniform noise: the null attack, which every real attack must beat."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from signsym_core.attacks.ball import column, within_ball
from signsym_core.attacks.base import Cost, NormedAttack
from signsym_core.attacks.problem import Problem
from signsym_core.registry import Count


@dataclasses.dataclass(frozen=True, kw_only=True)
class Noise(NormedAttack):
    """x' = x + U(-ε, ε), in L2 x + ε u with u uniform in the ball; with several `draws`, the one with the lowest score.

    The share of the L2 ball of d pixels within the radius r ε is r^d, so that its noise is nearly as long as ε.
    Robustness that noise breaks and a gradient does not is masked (Carlini et al. 2019 recommend 10,000 draws). There
    are no further draws for a lost image.
    """

    name = "noise"
    label = "noise"
    citation = "Carlini et al. 2019, On evaluating adversarial robustness, arXiv 1902.06705, section 4.3"
    tags = frozenset({"random"})
    tasks = frozenset({"classification", "hashing"})

    draws: Count = 1

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        assert problem.noise is not None
        images, counted = problem.images, problem.counted if self.norm == "l2" else None
        if counted is None:
            noise = 2 * problem.noise - 1
        else:
            noise = counted.in_ball(torch.arange(len(images), device=images.device), 0, images.shape[1:])
        best = within_ball(images, images + noise * epsilon, epsilon, self.norm)
        if self.draws == 1:
            return best
        scores, streams = problem.scores(best), problem.streams
        for draw in range(1, self.draws):
            if (draw - 1) % problem.looks_every == 0:
                alive = scores > 0
                places = alive.nonzero().flatten()
                subset, listed = problem.only(alive), places.tolist()
                if not listed:
                    break
            if counted is None:
                noise = 2 * streams.uniform(listed, *images.shape[1:]) - 1
            else:
                noise = counted.in_ball(places, draw, images.shape[1:])
            candidates = within_ball(subset.images, subset.images + noise * epsilon, epsilon, self.norm)
            before, after = scores[places], subset.scores(candidates)
            # Nothing is lower than the score of an image that is lost.
            lower = column(after < before, images)
            best = best.index_copy(0, places, torch.where(lower, candidates, best[places]))
            scores = scores.index_copy(0, places, torch.minimum(after, before))
        return best

    def cost(self, epsilons: int, clean: bool) -> Cost:
        draws = self.draws if self.draws > 1 else 0
        return Cost(forwards=epsilons * (1 + draws) + clean, gradients=0)

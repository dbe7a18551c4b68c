"""Certified accuracy by randomised smoothing: what no perturbation of a length can change, whoever looks for it.

Legend: n images x, f the model's top class, σ the size of the noise, α the chance of an error, Φ the normal
distribution function.
"""

from __future__ import annotations

import dataclasses
from typing import Annotated

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from signsym_core.attacks.ball import Norm
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.problem import Problem, Told
from signsym_core.registry import Count, Positive, within
from signsym_core.statistics.certified import beyond, farthest, radii


@dataclasses.dataclass(frozen=True, kw_only=True)
class Smoothing(Attack):
    """No attack, but a bound for all of them: x' = x, and an image counts as robust at ε where it is certified.

    It is about the smoothed classifier g(x), the class that f gives most often to x + N(0, σ² I), and not about f.
    The class c that wins `selection` draws is g's, with probability 1 - α at least, for every change shorter than
    R = σ Φ⁻¹(p) in L2, where p is the lower limit of Clopper and Pearson for the share of c among `samples` further
    draws; there is no certificate where p <= 1/2. An image is certified at ε where c is right and R > ε. `radius` is
    R, 0 where c is wrong or without a certificate. The noise goes beyond [0, 1], and is the same at every ε.

    R is below σ Φ⁻¹(α^(1 / samples)): no ε from there on can be certified. At ε = 0 stands the score of f. Predictions
    and confidences are those of f at x.
    """

    name = "smoothing"
    label = "randomised smoothing"
    citation = "Cohen, Rosenfeld, Kolter 2019, Certified robustness via randomized smoothing, arXiv 1902.02918"
    measuring = True
    certifying = True
    measures = ("radius",)

    sigma: Positive = 0.25
    #: Draws that choose the class, and draws that its share is counted in.
    selection: Count = 100
    samples: Count = 1000
    alpha: Annotated[float, within("(0, 1)")] = 0.001

    @property
    def norm(self) -> Norm:
        return "l2"

    def hopeless(self, epsilon: float) -> str:
        draws = (self.samples, self.sigma, self.alpha)
        return "" if epsilon < farthest(*draws) else beyond(*draws)

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        (radius,) = problem.once(self, self._radius)
        problem.told = Told(scores=(radius > epsilon).double(), measured=radius[:, None])
        return problem.images

    def _radius(self, problem: Problem) -> tuple[Tensor]:
        """float64 [n]: R, 0 where the class is wrong."""
        # Outputs that do not fit the labels are refused in words before there are a thousand of them.
        problem.check(problem.clean_outputs)
        chosen = self._counts(problem, 0, self.selection).argmax(dim=1)
        counts = self._counts(problem, self.selection, self.samples)
        right = problem.task.score(_one_hot(chosen, counts), problem.labels, problem.gallery)
        share = counts.gather(1, chosen[:, None])[:, 0].cpu().numpy()
        return (torch.from_numpy(self.certified(share)).to(right.device) * (right > 0),)

    def certified(self, counts: NDArray[np.int64]) -> NDArray[np.float64]:
        """float64 [n]: R, 0 without a certificate, where the class had so many of `samples` draws."""
        return radii(counts, self.samples, self.sigma, self.alpha)

    def _counts(self, problem: Problem, first: int, draws: int) -> Tensor:
        """int64 [n, classes]: how often f gives each class, in draws number `first` and following."""
        images, counted = problem.images, problem.counted
        places, pixels = torch.arange(len(images), device=images.device), images[0].numel()
        at_once = max(1, problem.micro_batch // len(images))
        counts: Tensor | None = None
        for start in range(first, first + draws, at_once):
            numbers = range(start, min(start + at_once, first + draws))
            noise = torch.stack([counted.normal(places, number, pixels) for number in numbers])
            outputs = problem.outputs((images + self.sigma * noise.view(-1, *images.shape)).flatten(0, 1))
            of_draws = _one_hot(outputs.argmax(dim=1), outputs).view(len(numbers), len(images), -1).sum(dim=0)
            counts = of_draws if counts is None else counts + of_draws
        assert counts is not None
        return counts

    def cost(self, epsilons: int, clean: bool) -> Cost:
        draws = self.selection + self.samples if epsilons else 0
        return Cost(forwards=draws + epsilons + bool(epsilons or clean), gradients=0)


def _one_hot(classes: Tensor, like: Tensor) -> Tensor:
    """int64 [n, classes] of int64 [n], for as many classes as `like` [n, classes] has; nothing waits for a GPU."""
    return (classes[:, None] == torch.arange(like.shape[1], device=like.device)).long()

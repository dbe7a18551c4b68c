"""Attacks that minimise each image's perturbation and use only decisions: whether an image is lost or not.

One run serves every epsilon: the perturbation is shortened to the ball, and the result is scored by the model.
"""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod

import torch
from torch import Tensor

from signsym_core.attacks.ball import column, sizes
from signsym_core.attacks.base import Attack, Cost
from signsym_core.attacks.problem import Problem, Told
from signsym_core.registry import require

#: Uniform images that are tried as a start, and steps on the line from the clean image to a lost one.
_DIRECTIONS, _BLENDS = 1000, 50
#: Share by which the final change is lengthened, so that rounding in another batch does not undo it.
_SAFETY = 1e-4


class Oracle:
    """Decides whether images are lost, and counts the queries of each image of the block.

    An image whose budget is spent is not queried again: further proposals for it count as not lost.
    """

    def __init__(self, problem: Problem, budget: int | None) -> None:
        self.problem, self.streams, self.micro_batch = problem, problem.streams, problem.micro_batch
        self.budget = math.inf if budget is None else budget
        #: int64 [n]: queries so far; the clean image took one.
        self.used = torch.ones(len(problem.images), dtype=torch.int64, device=problem.images.device)

    def affords(self, places: Tensor, queries: int = 1) -> Tensor:
        """bool: the images at `places` have so many queries left."""
        return self.used[places] + queries <= self.budget

    def lost(self, images: Tensor, places: Tensor, active: Tensor | None = None) -> Tensor:
        """bool [m]: whether each of `images`, made for the image of the block at its place, is lost.

        Where the mask `active` [m] is False nobody asks: no query is counted, and the answer is False. On a GPU images
        that are not asked about may pass through the model with the others.
        """
        queried = self.affords(places) if active is None else active & self.affords(places)
        if self.problem.looks_every > 1:
            self.used.index_add_(0, places, queried.long())
            return self.problem.lost(self.problem.outputs(images), places) & queried
        result = torch.zeros(len(images), dtype=torch.bool, device=images.device)
        rows = queried.nonzero().flatten()
        if len(rows):
            self.used.index_add_(0, places[rows], torch.ones_like(rows))
            result[rows] = self.problem.lost(self.problem.outputs(images[rows]), places[rows])
        return result


@dataclasses.dataclass(frozen=True, kw_only=True)
class MinimisationAttack(Attack):
    """Approximates the smallest perturbation under which an image is lost.

    Every image has a separate start, stream of random numbers and steps, so no image depends on its batch. The start is
    a uniform random image that is lost, moved towards the clean image along the straight line in 50 steps, as in
    Foolbox. An image for which 1,000 random images are not lost has no start: it counts as not broken, its distance is
    infinite, and the outcome counts such images. An image that is lost already has the distance 0.
    """

    tags = frozenset({"random"})

    #: How often the model may be asked about an image, its start included; None: as often as the steps need.
    queries: int | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.queries is None or self.queries >= 1, "queries", "at least 1, or null", self.queries)

    @abstractmethod
    def walk(self, oracle: Oracle, originals: Tensor, start: Tensor, places: Tensor) -> Tensor:
        """The nearest lost images on the attack's path from the lost images `start` [m, ...].

        `originals` are the clean images, `places` [m] their positions in the oracle's block.
        """

    @abstractmethod
    def needed(self) -> float:
        """Queries of an image that no budget ends."""

    def cost(self, epsilons: int, clean: bool) -> Cost:
        needed = self.needed() if self.queries is None else min(self.needed(), self.queries)
        return Cost(forwards=epsilons + (needed if epsilons else 1), gradients=0)

    def minimise(self, problem: Problem) -> tuple[Tensor, Tensor, Tensor]:
        """The adversarial images, their distances float64 [n], and the queries int64 [n] of each."""
        oracle = Oracle(problem, self.queries)
        images, alive = problem.images.clone(), problem.alive
        distances = torch.where(alive, math.inf, 0.0).double()
        places, start = self._starts(oracle, alive.nonzero().flatten())
        if len(places):
            originals = problem.images[places]
            nearest = self.walk(oracle, originals, start, places)
            further = (originals + (1 + _SAFETY) * (nearest - originals)).clamp(0, 1)
            safe = column(oracle.lost(further, places), nearest)
            images[places] = torch.where(safe, further, nearest)
            distances[places] = sizes(images[places] - originals, self.norm)
        return images, distances, oracle.used

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        images, distances, queries = problem.once(self, self.minimise)
        problem.told = Told(queries=queries, distances=distances)
        return images

    def _starts(self, oracle: Oracle, places: Tensor) -> tuple[Tensor, Tensor]:
        """The positions of the images that have a start, and the starts."""
        images, shape = oracle.problem.images, oracle.problem.images.shape[1:]
        noise, lost = torch.empty_like(images), torch.zeros(len(images), dtype=torch.bool, device=images.device)
        searching = places
        for _ in range(_DIRECTIONS):
            searching = searching[oracle.affords(searching)]
            if len(searching) == 0:
                break
            noise[searching] = oracle.streams.uniform(searching, *shape)
            lost[searching] = oracle.lost(noise[searching], searching)
            searching = searching[~lost[searching]]
        started = places[lost[places]]
        searching, share = started, torch.ones(len(images), dtype=images.dtype, device=images.device)
        for number in range(1, _BLENDS):
            if len(searching) == 0:
                break
            blend = number / _BLENDS
            is_lost = oracle.lost((1 - blend) * images[searching] + blend * noise[searching], searching)
            share[searching[is_lost]] = blend
            searching = searching[~is_lost]
        shares = column(share[started], images)
        return started, (1 - shares) * images[started] + shares * noise[started]

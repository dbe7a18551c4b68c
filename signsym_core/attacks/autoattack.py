"""AutoAttack: an ensemble of attacks that need no tuning, with the worst case over them for each image."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Annotated

from torch import Tensor

from signsym_core.attacks.apgd import APGD
from signsym_core.attacks.ball import within_ball
from signsym_core.attacks.base import Attack, Cost, NormedAttack
from signsym_core.attacks.fab import FAB
from signsym_core.attacks.margins import margin
from signsym_core.attacks.problem import Problem
from signsym_core.attacks.square import Square
from signsym_core.registry import Count, integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class AutoAttack(NormedAttack):
    """APGD on cross-entropy, APGD on the targeted DLR loss, FAB-T, then Square, each on the remaining images.

    The members of AutoAttack's standard version with its settings: 100 steps, 9 targets, 5,000 queries. This is an
    independent implementation, so results of the published package may differ by an image or so; its warnings about
    unsuitable defences are not included. A model with fewer than four classes has no targeted DLR loss, so that member
    is skipped. Of an image that no member breaks, the proposal with the smallest margin is returned. FAB runs once for
    all epsilons, when the first one needs it.
    """

    name = "autoattack"
    label = "AutoAttack"
    citation = "Croce, Hein 2020, Reliable evaluation of adversarial robustness, arXiv 2003.01690, section 5"
    tags = frozenset({"white-box", "random"})

    #: Steps of either APGD, and of FAB towards each class.
    steps: Annotated[int, integer(2)] = 100
    #: Number of target classes of the targeted attacks.
    targets: Count = 9
    #: Queries of Square.
    queries: Annotated[int, integer(2)] = 5000

    def members(self, classes: int) -> Iterator[Attack]:
        """The attacks on a model with so many outputs, in order."""
        yield APGD(norm=self.norm, steps=self.steps)
        if classes >= 4:
            yield APGD(norm=self.norm, steps=self.steps, loss="targeted-dlr", targets=self.targets)
        yield FAB(norm=self.norm, steps=self.steps, targets=self.targets)
        yield Square(norm=self.norm, queries=self.queries, rescaled=False)

    def parts(self) -> frozenset[str]:
        members = list(self.members(4))
        return frozenset(member.name for member in members).union(*(member.parts() for member in members))

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        best, alive = problem.images, problem.alive
        margins = margin(problem.clean_outputs, problem.labels)
        for member in self.members(problem.clean_outputs.shape[1]):
            places = alive.nonzero().flatten()
            if len(places) == 0:
                break
            subset = problem.only(alive)
            candidates = within_ball(subset.images, member.run(subset, epsilon), epsilon, self.norm)
            outputs = subset.outputs(candidates)
            new_margins, lost = margin(outputs, subset.labels), subset.lost(outputs)
            better = lost | (new_margins < margins[places])
            best = best.index_copy(0, places[better], candidates[better])
            margins = margins.index_copy(0, places[better], new_margins[better])
            alive = alive.index_copy(0, places, ~lost)
        return best

    def steps_taken(self) -> int:
        return self.steps * (1 + self.targets)

    def step(self, epsilon: float) -> float:
        """The first step of APGD; later ones are shorter."""
        return 2 * epsilon

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # Of a model with four classes and more. Members share the clean outputs, and their proposals are scored.
        costs = [member.cost(epsilons, clean) for member in self.members(4)]
        forwards = 1 + sum(cost.forwards - 1 for cost in costs) + epsilons
        return Cost(forwards=forwards, gradients=sum(cost.gradients for cost in costs))

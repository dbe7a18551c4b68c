"""The interface of an attack: one method that proposes images for one epsilon. The caller does everything else.

Epsilon is an L∞ radius in the [0, 1] pixel range, unless the attack says that it is one in L2.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar, NamedTuple

from torch import Tensor

from signsym_core.arithmetic import Precision
from signsym_core.attacks.ball import Norm
from signsym_core.attacks.problem import Problem
from signsym_core.registry import Member, neutral


class Cost(NamedTuple):
    """Passes of one image through the model."""

    #: Forward passes, beside those of the gradients.
    forwards: float
    #: Gradients, each a forward and a backward pass.
    gradients: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(Member, ABC):
    """An attack. Its tags promise "white-box" (it uses gradients), "linf" (it has no other norm), "random" (it draws
    random numbers)."""

    elsewhere: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("eps", "epsilon", "epsilons", "radius", "radii"),
        "radii are given as 'epsilon' beside the attack's name in a grid, and as the argument epsilons in Python",
    )
    #: The tasks that the attack fits.
    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})
    #: What it measures of each image besides: see `Told.measured`. Names that are no columns of outcomes in the store
    #: are in `Outcome.measured` alone.
    measures: ClassVar[tuple[str, ...]] = ()
    #: Whether it is run for its `measures` alone: what it leaves robust is in no worst case and no verdict.
    measuring: ClassVar[bool] = False
    #: Whether what it leaves robust is so against every attack on a smoothed model: its score is a certified accuracy.
    certifying: ClassVar[bool] = False
    #: Whether it can start from the images `problem.start`.
    goes_on: ClassVar[bool] = False

    #: Arithmetic of the models, both for gradients and for scores.
    precision: Precision = neutral("float32")
    #: Whether a GPU uses only deterministic kernels.
    deterministic: bool = neutral(True)
    #: For spiking networks, the slope of their surrogate under attack; null: the one that they were trained with.
    spike_slope: float | None = neutral(None)

    @abstractmethod
    def run(self, problem: Problem, epsilon: float) -> Tensor:
        """Adversarial images for `problem` at the radius `epsilon` > 0, of the shape of its images.

        The caller projects the result into the ball and into [0, 1], so a member need not.
        """

    @property
    def norm(self) -> Norm:
        """The norm that epsilon is a radius of."""
        return "linf"

    def hopeless(self, epsilon: float) -> str:
        """Why its score at an ε is 0 whatever the model, in words; "" where the model decides."""
        return ""

    def parts(self) -> frozenset[str]:
        """The names of the attacks that it runs and of the losses that it raises: where the numbers of one move, its
        own do. Here classification's loss, for an attack that follows gradients.
        """
        return frozenset({"cross-entropy"} if "white-box" in self.tags and "classification" in self.tasks else ())

    def steps_taken(self) -> int:
        """Gradient steps for one epsilon, as stored with the results."""
        return 0

    def step(self, epsilon: float) -> float:
        """Length of one step in the attack's norm, in the [0, 1] pixel range; 0 where there is none."""
        return 0.0

    def cost(self, epsilons: int, clean: bool) -> Cost:
        """The passes of an image that is never lost, for so many epsilons above 0 and, with `clean`, for 0 too.

        The scoring of each epsilon's image is among them, `cost_of_measures` is not. Used to estimate time.
        """
        return Cost(forwards=epsilons + clean, gradients=epsilons * self.steps_taken())

    def cost_of_measures(self, epsilons: int) -> Cost:
        """The passes of an image for its `measures` besides, for so many epsilons above 0.

        Their gradients are exact ones, one each whatever source the attack follows, and none of an image that is made
        on a surrogate.
        """
        return Cost(forwards=0, gradients=0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class NormedAttack(Attack):
    """An attack whose epsilons are radii in L∞ or L2, as a parameter says."""

    #: The norm that epsilons are radii of, and that steps are taken in.
    norm: Norm = neutral("linf")

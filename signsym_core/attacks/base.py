"""What an attack is: one method that proposes images for one epsilon. The caller does everything else.

Epsilon is an L∞ radius in the [0, 1] pixel range, unless the attack says that it is one in L2.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from signsym_core.arithmetic import Precision
from signsym_core.attacks.ball import Norm
from signsym_core.attacks.problem import Problem
from signsym_core.registry import Member, neutral


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(Member, ABC):
    """An attack. Its tags promise "white-box" (it asks for gradients), "linf", "random" (it draws)."""

    #: The tasks that the attack fits.
    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})
    #: Whether it goes on from the images `problem.start` where it is given some.
    goes_on: ClassVar[bool] = False

    #: In which arithmetic the models are run, for gradients and for verdicts alike.
    precision: Precision = neutral("float32")
    #: Whether a GPU uses only kernels that give the same bits again.
    deterministic: bool = neutral(True)

    @abstractmethod
    def run(self, problem: Problem, epsilon: float) -> Tensor:
        """Adversarial images for `problem` at the radius `epsilon` > 0, of the shape of its images.

        The caller brings the result back into the ball and into [0, 1], so a member need not.
        """

    @property
    def norm(self) -> Norm:
        """The norm that epsilon is a radius of."""
        return "linf"

    def steps_taken(self) -> int:
        """Gradient steps for one epsilon, as stored with the results."""
        return 0

    def step(self, epsilon: float) -> float:
        """Length of one step, L∞, in the [0, 1] pixel range; 0 where there is none."""
        return 0.0

    def cost(self, epsilons: int) -> float:
        """Forward passes per image for so many epsilons, a backward pass counted as two: for estimates of time."""
        return epsilons * (1 + 3 * self.steps_taken())

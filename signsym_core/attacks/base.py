"""What an attack is: one method that proposes images for one epsilon. The caller does everything else.

Epsilon is an L∞ radius in the [0, 1] pixel range throughout.
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from signsym_core.attacks.problem import Problem
from signsym_core.registry import Member


@dataclasses.dataclass(frozen=True, kw_only=True)
class Attack(Member, ABC):
    """An attack. Its tags promise "white-box" (it asks for gradients), "linf", "random" (it uses the noise)."""

    #: The tasks that the attack fits.
    tasks: ClassVar[frozenset[str]] = frozenset({"classification"})

    @abstractmethod
    def run(self, problem: Problem, epsilon: float) -> Tensor:
        """Adversarial images for `problem` at the radius `epsilon` > 0, of the shape of its images.

        The caller clips the result to the ball and to [0, 1], so a member need not.
        """

    def steps_taken(self) -> int:
        """Gradient steps for one epsilon, as stored with the results."""
        return 0

    def step(self, epsilon: float) -> float:
        """Length of one step, L∞, in the [0, 1] pixel range; 0 where there is none."""
        return 0.0

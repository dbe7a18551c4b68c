"""The images that an attack makes, as they count: in its ball, in [0, 1], and of the type that the model takes."""

from __future__ import annotations

from torch import Tensor

from signsym_core.attacks.ball import representable, within_ball
from signsym_core.attacks.base import Attack
from signsym_core.attacks.gradients import Source
from signsym_core.attacks.problem import Problem


def crafted(attack: Attack, source: Source, problem: Problem, epsilon: float) -> Tensor:
    """What `attack` proposes along the gradients of `source`, projected into the ball of radius `epsilon` > 0.

    The problem's tally has the non-finite entries of the images' gradients afterwards: see `Tally`, which says too why
    an attack that met any runs again.
    """
    tally = problem.tally
    tally.entries.zero_()
    proposed = source.craft(attack, problem, epsilon)
    if tally.followed and tally.entries.any():
        tally.careful = True
        proposed = source.craft(attack, problem, epsilon)
        tally.careful = False
    # A pixel whose proposal is NaN stays unchanged, like one whose gradient is NaN.
    tally.note(proposed.isnan().flatten(1).sum(dim=1), problem.numbers)
    images = within_ball(problem.images, proposed, epsilon, attack.norm)
    return representable(problem.images, images, problem.attacked.dtype)

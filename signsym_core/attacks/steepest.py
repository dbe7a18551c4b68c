"""The common base of attacks by steps of one length: the start, the step size, the projection into the ball."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor

from signsym_core.attacks.ball import projected, steepest
from signsym_core.attacks.base import Cost, NormedAttack
from signsym_core.attacks.problem import Problem
from signsym_core.registry import Count, require


@dataclasses.dataclass(frozen=True, kw_only=True)
class SteepestAscent(NormedAttack):
    """x₀ = x + U(-ε, ε); xₜ₊₁ = Π(xₜ + α · sign(d(xₜ))), with Π the projection to the ball and to [0, 1].

    In L2 the start is uniform in the ball, and the step α · d / |d|. α is `step_size` (in pixels of [0, 1]) or
    `relative_step` · ε; by default 2.5 · ε / `steps`, Madry's rule of thumb, where a member has no other. The random
    start is drawn once and scaled by each epsilon, so a result never depends on the other epsilons of the call. Without
    it all epsilons share the first gradient.
    """

    tags = frozenset({"white-box", "random"})
    goes_on = True

    steps: Count = 5
    step_size: float | None = None
    relative_step: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.step_size is None or self.step_size > 0, "step_size", "a number above 0", self.step_size)
        require(self.relative_step is None or self.relative_step > 0, "relative_step", "above 0", self.relative_step)
        both = self.step_size is not None and self.relative_step is not None
        require(not both, "relative_step", "null where step_size is given", self.relative_step)

    def direction(self, problem: Problem, current: Tensor) -> Tensor:
        """d(x): the direction to follow from `current`, of any size. Here the gradient of the task's loss."""
        return problem.gradient(current)

    def accumulated(self, total: Tensor | None, direction: Tensor) -> Tensor:
        """What to follow, after the steps that `total` comes from (None before the first) and this direction."""
        return direction

    def usual_step(self) -> float:
        """The step over epsilon where no parameter gives it."""
        return 2.5 / self.steps

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        images, step = problem.images, self.step(epsilon)
        current, total = images, None
        if problem.start is not None:
            current = problem.start
        elif self.random_start:
            current = (images + self._start(problem, epsilon)).clamp(0, 1)
        for _ in range(self.steps):
            total = self.accumulated(total, self.direction(problem, current))
            moved = current + step * steepest(total, self.norm)
            current = projected(images, moved, epsilon, self.norm)
        return current

    def _start(self, problem: Problem, epsilon: float) -> Tensor:
        """The first change, uniform in the ball."""
        if self.norm == "linf":
            assert problem.noise is not None
            return problem.noise * (2 * epsilon) - epsilon
        images = problem.images
        everywhere = torch.arange(len(images), device=images.device)
        return epsilon * problem.counted.in_ball(everywhere, 0, images.shape[1:])

    def steps_taken(self) -> int:
        return self.steps

    def cost(self, epsilons: int, clean: bool) -> Cost:
        if self.random_start or not epsilons:
            return super().cost(epsilons, clean)
        # The first gradient, at the clean images, serves every epsilon and has their outputs too.
        return Cost(forwards=epsilons, gradients=1 + epsilons * (self.steps - 1))

    def step(self, epsilon: float) -> float:
        if self.step_size is not None:
            return self.step_size
        relative = self.usual_step() if self.relative_step is None else self.relative_step
        return relative * epsilon

"""What a learned rule is: a rule whose B is a state of its own, held beside W and taught once per optimiser step.

A layer under such a rule holds tensors, from which B is made: B itself, or factors of it. They are parameters of the
layer, called "<layer>.feedback.<name>", so that they stand in state dicts, move with the layer and are copied with it.
`signsym_core.rules.held` keeps them, `signsym_core.rules.lessons` says when they are taught.

Legend: W, B [out, in] or [out, in / groups, k, k]; fan_in the columns of a flattened W; δ [.., out] the gradients that
arrive at a layer's outputs.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.rules.base import ScaledRule
from signsym_core.rules.fa import FA


@dataclasses.dataclass(frozen=True)
class Lesson:
    """What a layer knows when it is taught: just before the optimiser's step, with the gradients of the whole batch."""

    #: W as it is before the step, and its complete gradient δ xᵀ; 0 for a frozen weight.
    weight: Tensor
    gradient: Tensor
    #: Sums over the δ of all backward passes since the last lesson: see `LearnedRule.observe`.
    sums: Mapping[str, Tensor]
    #: Names of the layer's stream of random numbers: seed, place of the layer and number of the lesson.
    stream: tuple[int, int, int]

    @functools.cached_property
    def generator(self) -> torch.Generator:
        """Random numbers of this lesson alone, on the device of W."""
        seed, place, number = self.stream
        return seeds.generator(seed, "mirror", place, number, device=self.weight.device)


@dataclasses.dataclass(frozen=True, kw_only=True)
class LearnedRule(ScaledRule):
    """A rule with held tensors. `scale` is the size that random ones begin with."""

    tags = frozenset({"learned"})

    #: The held tensor that is B itself; None where `assemble` makes B.
    matrix: ClassVar[str | None] = "B"
    #: Whether the optimiser's weight decay applies to held tensors as it does to W.
    decays: ClassVar[bool] = False

    @property
    def needs_gradient(self) -> bool:
        """Whether `learn` needs ∂W. A rule that does not is taught at a frozen weight too, with a gradient of 0."""
        return True

    @property
    def follows_optimizer(self) -> bool:
        """Whether the optimiser trains the held tensors, by gradients from `learn`; otherwise `learn` writes them."""
        return True

    @property
    def aligns(self) -> bool:
        """Whether training brings B towards W. The conformance suite holds a rule to it that does not say False."""
        return True

    @property
    def observes(self) -> bool:
        """Whether `observe` is to see the δ of every backward pass of training."""
        return False

    def begin(self, weight: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        """The held tensors at conversion, from W and random numbers, both on the CPU."""
        return {"B": self.random_start(weight, generator)}

    def assemble(self, held: Mapping[str, Tensor], out: Tensor) -> None:
        """Write B into `out`, contiguous and of W's shape. Only called where `matrix` is None."""
        raise NotImplementedError(f"{self.name} has no held tensor that is B, and does not assemble B")

    def observe(self, held: Mapping[str, Tensor], delta: Tensor) -> dict[str, Tensor]:
        """Sums over the rows of δ [n, out] of one backward pass; those of several passes are added up."""
        raise NotImplementedError(f"{self.name} wants to observe δ and does not say what for")

    def learn(self, held: Mapping[str, Tensor], lesson: Lesson) -> dict[str, Tensor]:
        """Gradients for held tensors by name, which the optimiser then uses; or {}, having changed `held` in place."""
        return {}

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        raise TypeError(f"B of {self.name} is made from held tensors, not from W")

    def check_optimizer(self, optimizer: torch.optim.Optimizer, of_weight: dict[str, Any], of_held: list[Any]) -> None:
        """Raise ValueError where the rule is not itself under this optimiser: the groups of W and of held tensors."""

    def random_start(self, weight: Tensor, generator: torch.Generator) -> Tensor:
        """The B of feedback alignment: uniform, of the size that `scale` says, of the shape of `weight`."""
        start = FA(scale=self.scale)
        drawn = torch.empty(weight.shape, dtype=weight.dtype)
        start.draw(drawn, generator)
        return drawn.mul_(start.size(weight))


def uniform(shape: tuple[int, int], rms: Tensor | float, like: Tensor, generator: torch.Generator) -> Tensor:
    """U(-√3 rms, √3 rms), of the type of `like`, on the CPU."""
    drawn = torch.empty(shape, dtype=like.dtype)
    FA().draw(drawn, generator)
    return drawn.mul_(math.sqrt(3) * rms)

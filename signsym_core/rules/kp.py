"""Kolen-Pollack learning (KP): B gets W's updates and W's decay, so that what both began with is forgotten."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor
from torch.optim import NAdam, RAdam, RMSprop
from torch.optim.adadelta import Adadelta
from torch.optim.adagrad import Adagrad
from torch.optim.adam import Adam
from torch.optim.adamax import Adamax

from signsym_core.rules.learned import LearnedRule, Lesson
from signsym_core.rules.usf import USF

#: Optimisers that divide by moments of the gradient, into which coupled weight decay would go.
_ADAPTIVE = (Adam, NAdam, RAdam, RMSprop, Adagrad, Adadelta, Adamax)


@dataclasses.dataclass(frozen=True, kw_only=True)
class KP(LearnedRule):
    """KP, ∂B = ∂W = δ xᵀ with the same decay λ, so that B - W = (1 - ηλ)ᵗ (B₀ - W₀) after t steps at the rate η.

    `start` is B₀: `random` as in feedback alignment, or `signs`, uSF's matrix. Without decay B - W stays, and only
    their angle shrinks as W grows. Weight decay must be decoupled (AdamW, or SGD): Adam's goes through the moments,
    which differ for B and W, so that it is refused.
    """

    name = "kp"
    label = "KP"
    citation = "Akrout et al. 2019, Deep learning without weight transport, arXiv 1904.05391, equations 16 and 17"
    decays = True

    start: Literal["random", "signs"] = "random"

    def begin(self, weight: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        if self.start == "signs":
            return {"B": torch.sign(weight).mul_(USF(scale=self.scale).size(weight))}
        return super().begin(weight, generator)

    def learn(self, held: Mapping[str, Tensor], lesson: Lesson) -> dict[str, Tensor]:
        return {"B": lesson.gradient}

    def misfit(self, optimizer: str, weight_decay: float) -> str | None:
        if optimizer != "adam" or not weight_decay:
            return None
        return (
            f"B follows W by decay, which Adam couples with its moments, so that B and W would get different updates; "
            f"expected optimizer 'adamw' or weight_decay 0, got optimizer 'adam' with weight_decay {weight_decay:g}"
        )

    def check_optimizer(self, optimizer: torch.optim.Optimizer, of_weight: dict[str, Any], of_held: list[Any]) -> None:
        if any(group is not of_weight for group in of_held):
            raise ValueError("its B must be in the parameter group of its weight, so that both have one rate and decay")
        coupled = isinstance(optimizer, _ADAPTIVE) and not of_weight.get("decoupled_weight_decay", False)
        if coupled and of_weight.get("weight_decay", 0):
            kind = type(optimizer).__name__
            raise ValueError(
                f"{kind} couples weight decay with its moments, so that B and W would get different updates; expected "
                f"AdamW, SGD or weight_decay=0, got {kind} with weight_decay={of_weight['weight_decay']:g}"
            )

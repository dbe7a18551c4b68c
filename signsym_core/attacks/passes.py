"""The passes of a model: how many there were, and the gradient that one of them gives."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


class NoGradientWarning(UserWarning):
    """The outputs do not depend on the pixels by any path that autograd knows: the gradient counts as 0."""


class Passes:
    """How often the model was run, forward and backward, in calls and in images."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0
        self.images_forward = self.images_backward = 0


def gradient_of(total: Tensor, variable: Tensor, slope: Tensor | None = None) -> Tensor:
    """The gradient of `total`, along `slope` where that is no scalar; 0, with a warning, where no path leads to it.

    A slope may be followed again through the same pass.

    Whether an attack that follows a gradient says anything of such a model is the audit's question.
    """
    gradient = None
    if total.requires_grad:
        (gradient,) = torch.autograd.grad(total, variable, slope, retain_graph=slope is not None, allow_unused=True)
    if gradient is None:
        warnings.warn(
            "the model gives no gradient: its outputs do not depend on the pixels by any path that autograd knows (a "
            "detach, an argmax, numpy?). Attacks that follow a gradient are no test of it; ask signsym_core.audit, or "
            "attack it by transfer or without a gradient",
            NoGradientWarning,
            stacklevel=2,
        )
        return torch.zeros_like(variable)
    return gradient

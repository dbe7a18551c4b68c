"""The passes of a model: their number, and the gradient of one pass."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor


class NoGradientWarning(UserWarning):
    """Autograd knows no path from the pixels to the outputs: the gradient counts as 0."""


class Passes:
    """How often the model was run, forward and backward, in calls and in images."""

    def __init__(self) -> None:
        self.forwards = self.backwards = 0
        self.images_forward = self.images_backward = 0


def gradient_of(total: Tensor, variable: Tensor, slope: Tensor | None = None) -> Tensor:
    """The gradient of `total`, along `slope` where `total` is no scalar; 0, with a warning, where there is no path.

    With a slope the graph is kept, so that the same pass can be differentiated again. Whether gradient attacks are a
    meaningful test of a model without a gradient is for the audit to decide.
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

"""A model as any library's attack takes one: an nn.Module whose backward pass is the chosen gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: From ∂L/∂outputs [m, outputs] to the gradient of the m images that gave the outputs.
Pullback = Callable[[Tensor], Tensor]
#: From images to their outputs, and to what sends a gradient of the outputs back to them.
Record = Callable[[Tensor], tuple[Tensor, Pullback]]


class ProblemModule(nn.Module):
    """Takes images [m, channels, height, width] in [0, 1], gives logits [m, outputs]; every pass is counted.

    It holds no parameters: a library that moves, trains or copies it does nothing to the model. A gradient of its
    gradient does not exist, since a chosen gradient is no derivative: torch raises RuntimeError.
    """

    def __init__(self, count: int, outputs: Callable[[Tensor], Tensor], record: Record) -> None:
        super().__init__()
        self._count, self._outputs, self._record = max(1, count), outputs, record
        #: How often each image of the block was looked at; a batch of fewer images counts for all of them.
        self.queries = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.queries += -(-len(images) // self._count)
        # Some attacks divide by 0 for an image that is lost already; of a pixel that is no number nothing is known.
        images = torch.where(images.isnan(), 0.0, images)
        if torch.is_grad_enabled() and images.requires_grad:
            outputs: Tensor = _Chosen.apply(images, self._record)
            return outputs
        return self._outputs(images)

    def __deepcopy__(self, memo: dict[int, Any]) -> ProblemModule:
        # A copy would count for itself alone.
        return self


class _Chosen(torch.autograd.Function):
    """The model forward; backward, what its record says."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, record: Record) -> Tensor:
        outputs, ctx.pullback = record(images)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.pullback(*gradients), None

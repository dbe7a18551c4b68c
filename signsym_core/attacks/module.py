"""The attacked model as an nn.Module for any library's attack: its backward pass is the chosen gradient."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

#: From ∂L/∂outputs [m, outputs] to the gradient of the m images that gave the outputs.
Pullback = Callable[[Tensor], Tensor]
#: From images to their outputs and the pullback of a gradient of the outputs.
Record = Callable[[Tensor], tuple[Tensor, Pullback]]


class ProblemModule(nn.Module):
    """From images [m, channels, height, width] in [0, 1] to logits [m, outputs]; every pass is counted.

    It holds no parameters: a library that moves, trains or copies it does not change the model. There are no second
    derivatives, since a chosen gradient need not be a derivative: torch raises RuntimeError.
    """

    def __init__(self, count: int, outputs: Callable[[Tensor], Tensor], record: Record) -> None:
        super().__init__()
        self._count, self._outputs, self._record = max(1, count), outputs, record
        #: Queries of each image of the block; a batch of fewer images counts for all of them.
        self.queries = 0
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        self.queries += -(-len(images) // self._count)
        # Some attacks divide by 0 for an image that is lost already; NaN pixels are replaced by 0.
        images = torch.where(images.isnan(), 0.0, images)
        if torch.is_grad_enabled() and images.requires_grad:
            outputs: Tensor = _Chosen.apply(images, self._record)
            return outputs
        return self._outputs(images)

    def __deepcopy__(self, memo: dict[int, Any]) -> ProblemModule:
        # A copy would have a separate count.
        return self


class _Chosen(torch.autograd.Function):
    """The model forward, the pullback of its record backward."""

    @staticmethod
    def forward(ctx: Any, images: Tensor, record: Record) -> Tensor:
        outputs, ctx.pullback = record(images)
        return outputs

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> Any:
        return ctx.pullback(*gradients), None

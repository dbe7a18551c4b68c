"""The products of converted layers: their forward pass is W's, their backward pass sends B down.

Legend: x [n, in, h, w] or [..., in]; W, B as in `rules.base`; δ the gradient that arrives from above, of y's shape.
"""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor

from signsym_core.rules.state import Use


class LinearFunction(torch.autograd.Function):
    """y = x Wᵀ + b forward; g_x = δ B, ∂W = δᵀ x, ∂b = Σ δ backward."""

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, matrix: Tensor, use: Use | None) -> Tensor:
        return F.linear(x, weight, bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, _, matrix, ctx.use = inputs
        ctx.save_for_backward(x if weight.requires_grad else None, matrix)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (delta,) = gradients
        x, matrix = ctx.saved_tensors
        down = delta @ matrix.to(delta.dtype) if ctx.needs_input_grad[0] else None
        flat = delta.flatten(0, -2)
        by_weight = flat.t() @ x.flatten(0, -2) if ctx.needs_input_grad[1] else None
        by_bias = flat.sum(0) if ctx.needs_input_grad[2] else None
        return down, by_weight, by_bias, None, None


class Conv2dFunction(torch.autograd.Function):
    """y = x * W + b forward; backward, one call gives the gradients of x (with B), W and b."""

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, matrix: Tensor, use: Use | None, *geometry: Any
    ) -> Tensor:
        stride, padding, dilation, groups = geometry
        return F.conv2d(x, weight, bias, stride, padding, dilation, groups)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        x, weight, _, matrix, ctx.use, *ctx.geometry = inputs
        ctx.save_for_backward(x, matrix)
        ctx.outputs = weight.shape[0]

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Any:
        (delta,) = gradients
        x, matrix = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        needs = ctx.needs_input_grad
        down, by_weight, by_bias = torch.ops.aten.convolution_backward.default(
            delta,
            x,
            matrix.to(delta.dtype),
            [ctx.outputs],
            stride,
            padding,
            dilation,
            False,
            [0, 0],
            groups,
            [needs[0], needs[1], needs[2]],
        )
        return down, by_weight, by_bias, None, None, None, None, None, None


def multiplied(x: Tensor, weight: Tensor, bias: Tensor | None, matrix: Tensor, use: Use | None) -> Tensor:
    """x Wᵀ + b whose backward pass sends δ B down."""
    single = x.ndim == 1
    y = cast(Tensor, LinearFunction.apply(x.unsqueeze(0) if single else x, weight, bias, matrix, use))
    return y.squeeze(0) if single else y

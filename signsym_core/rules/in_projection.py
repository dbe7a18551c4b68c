"""The projections of an attention as layers whose weights stay parameters of the attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from signsym_core.rules.feedback import FeedbackLinear, serve_with
from signsym_core.rules.products import multiplied


class InProjection(nn.Linear):
    """y = x Wᵀ + b with weights that stay parameters of the attention, so that no state dict changes."""

    def __init__(self, attention: nn.MultiheadAttention, weight_name: str, bias_rows: slice) -> None:
        nn.Module.__init__(self)
        # In a tuple, since a module would be registered.
        self.attention, self.weight_name, self.bias_rows = (attention,), weight_name, bias_rows
        self.out_features, self.in_features = self.weight.shape
        self.training = attention.training

    @property
    def weight(self) -> Tensor:  # type: ignore[override]
        """The attention's parameter."""
        weight: Tensor = getattr(self.attention[0], self.weight_name)
        return weight

    @property
    def bias(self) -> Tensor | None:  # type: ignore[override]
        """The attention's, or the rows of it that belong to this projection."""
        bias: Tensor | None = self.attention[0].in_proj_bias
        return None if bias is None else bias[self.bias_rows]

    def products(self, weight: Tensor, bias: Tensor | None, inputs: Sequence[tuple[Tensor, slice]]) -> list[Tensor]:
        """x Wᵀ + b for each x and the rows of W that it meets."""
        return [F.linear(x, weight[rows], None if bias is None else bias[rows]) for x, rows in inputs]


class FeedbackInProjection(FeedbackLinear, InProjection):
    """An in-projection whose backward pass sends B down: one B for all inputs of one pass."""

    def products(self, weight: Tensor, bias: Tensor | None, inputs: Sequence[tuple[Tensor, slice]]) -> list[Tensor]:
        """x Wᵀ + b for each x and the rows of W, and of B, that it meets."""
        self.state.service.ran = True
        if self.plain:
            return InProjection.products(self, weight, bias, inputs)
        operands = [self.operands(x, weight[rows], None if bias is None else bias[rows]) for x, rows in inputs]
        if not self.sends_down(*(tensor for operand in operands for tensor in operand)):
            return [F.linear(*operand) for operand in operands]
        matrix, use = self.matrix(weight)
        products = zip(operands, inputs, strict=True)
        return [self.observed(multiplied(*operand, matrix[rows], use), rows) for operand, (_, rows) in products]

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        # The weights are moved after this, by the attention, which then tells the state.
        return nn.Module._apply(self, fn, recurse)  # type: ignore[no-any-return]


serve_with(InProjection, FeedbackInProjection)

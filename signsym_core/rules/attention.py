"""nn.MultiheadAttention with its projections as layers, so that a rule serves them like any other Linear.

torch's attention multiplies by the weights of its projections itself, in one function or, in evaluation, in one fused
kernel: a rule that only converted `out_proj` would be gone around. An opened attention computes
softmax(Q Kᵀ / √d + mask) V with the same operations in the same order, and calls its projections.

Legend: query [t, n, e], key [s, n, k], value [s, n, v], whatever `batch_first` says outside; h heads of d = e / h.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from signsym_core.rules.feedback import FeedbackLayer
from signsym_core.rules.in_projection import FeedbackInProjection, InProjection


class OpenAttention(nn.MultiheadAttention):
    """Multi-head attention that calls its projections: `in_proj` or `q_proj`, `k_proj`, `v_proj`, and `out_proj`."""

    in_proj: InProjection
    q_proj: InProjection
    k_proj: InProjection
    v_proj: InProjection

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Arguments and results of nn.MultiheadAttention. Raises ValueError for a nested tensor."""
        if query.is_nested:
            raise ValueError("a converted attention takes dense tensors and masks, got a nested tensor")
        if is_causal and attn_mask is None:
            raise ValueError("is_causal says what attn_mask is, so attn_mask must be given with it")
        batched = query.dim() == 3
        self_attention = query is key and key is value
        query, key, value = (self._sequence_first(x, batched) for x in (query, key, value))
        padding = None if key_padding_mask is None else _additive(key_padding_mask, query.dtype)
        if padding is not None:
            padding = padding.view(query.shape[1], 1, 1, -1)
        # Where nothing else is masked the fused kernel knows the causal mask itself.
        causal = is_causal and padding is None and not need_weights
        mask = None if causal or attn_mask is None else _additive(attn_mask, query.dtype)
        if mask is not None:
            mask = mask.view(-1, self.num_heads if mask.dim() == 3 else 1, *mask.shape[-2:])
        q, k, v = self._projected(query, key, value, self_attention)
        if self.bias_k is not None and self.bias_v is not None:
            k, v = (torch.cat([x, row.repeat(1, x.shape[1], 1)]) for x, row in ((k, self.bias_k), (v, self.bias_v)))
        if self.add_zero_attn:
            k, v = (torch.cat([x, x.new_zeros(1, *x.shape[1:])]) for x in (k, v))
        # What was added is never masked.
        padding, mask = (None if x is None else F.pad(x, (0, len(k) - len(key))) for x in (padding, mask))
        combined_mask = padding if mask is None else mask if padding is None else mask + padding
        q, k, v = (x.reshape(*x.shape[:2], self.num_heads, self.head_dim).permute(1, 2, 0, 3) for x in (q, k, v))
        attended, weights = self._attended(q, k, v, combined_mask, causal, need_weights)
        outputs = self.out_proj(attended.permute(2, 0, 1, 3).reshape(-1, self.embed_dim)).view(query.shape)
        if weights is not None and average_attn_weights:
            weights = weights.mean(dim=1)
        if not batched:
            return outputs.squeeze(1), None if weights is None else weights.squeeze(0)
        return outputs.transpose(0, 1) if self.batch_first else outputs, weights

    def _sequence_first(self, x: Tensor, batched: bool) -> Tensor:
        if not batched:
            return x.unsqueeze(1)
        return x.transpose(0, 1) if self.batch_first else x

    def _projected(self, query: Tensor, key: Tensor, value: Tensor, self_attention: bool) -> Sequence[Tensor]:
        """Q, K and V [steps, n, e]."""
        everything, size = slice(None), self.embed_dim
        if not self._qkv_same_embed_dim:
            biases = [None] * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
            projections = (self.q_proj, self.k_proj, self.v_proj)
            weights = (self.q_proj_weight, self.k_proj_weight, self.v_proj_weight)
            return [
                projection.products(weight, bias, [(x, everything)])[0]
                for projection, weight, bias, x in zip(projections, weights, biases, (query, key, value), strict=True)
            ]
        # Once for all three, so that a rule that draws at every pass draws once.
        inputs = (
            [(query, everything)]
            if self_attention
            else [(x, slice(place * size, (place + 1) * size)) for place, x in enumerate((query, key, value))]
        )
        products = self.in_proj.products(self.in_proj_weight, self.in_proj_bias, inputs)
        return [product.contiguous() for product in products[0].chunk(3, dim=-1)] if self_attention else products

    def _attended(
        self, q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, causal: bool, need_weights: bool
    ) -> tuple[Tensor, Tensor | None]:
        """[n, h, t, d] from [n, h, steps, d], and the weights [n, h, t, s] where they are needed."""
        dropout = self.dropout if self.training else 0.0
        if not need_weights:
            return F.scaled_dot_product_attention(q, k, v, mask, dropout, causal), None
        scaled, across = (q * math.sqrt(1 / self.head_dim)).flatten(0, 1), k.flatten(0, 1).transpose(1, 2)
        shape = (*q.shape[:3], k.shape[2])
        if mask is None:
            scores = torch.bmm(scaled, across)
        else:
            scores = torch.baddbmm(mask.expand(shape).flatten(0, 1), scaled, across)
        weights = F.dropout(scores.softmax(dim=-1), dropout)
        return torch.bmm(weights, v.flatten(0, 1)).view(q.shape), weights.view(shape)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> nn.Module:
        served = [projection for projection in self.children() if isinstance(projection, FeedbackInProjection)]
        owed = [projection.state.owes_draw(projection.weight) for projection in served]
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        for projection, due in zip(served, owed, strict=True):
            projection.state.moved(fn, projection.weight, due)
        return self


def _additive(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask to add to scores: -∞ where a mask of bool is True."""
    if mask.dtype == torch.bool:
        return torch.zeros_like(mask, dtype=dtype).masked_fill(mask, -math.inf)
    if not mask.is_floating_point():
        raise ValueError(f"a mask of an attention is bool or floating point, got {mask.dtype}")
    return mask


def open_attentions(network: nn.Module) -> None:
    """Open every attention of `network` that computes as nn.MultiheadAttention itself does, in place."""
    for module in list(network.modules()):
        if type(module) is not nn.MultiheadAttention or "forward" in vars(module):
            continue
        if parametrize.is_parametrized(module):
            continue
        module.__class__ = OpenAttention
        opened, size = cast(OpenAttention, module), module.embed_dim
        if opened._qkv_same_embed_dim:
            opened.in_proj = InProjection(opened, "in_proj_weight", slice(None))
        else:
            for place, letter in enumerate("qkv"):
                rows = slice(place * size, (place + 1) * size)
                opened.add_module(f"{letter}_proj", InProjection(opened, f"{letter}_proj_weight", rows))
        # Layers stand in the order in which they are met.
        module._modules["out_proj"] = module._modules.pop("out_proj")


def close_attentions(network: nn.Module) -> None:
    """Undo `open_attentions` where no projection of an attention is served by a rule."""
    for module in list(network.modules()):
        if isinstance(module, OpenAttention) and not any(isinstance(m, FeedbackLayer) for m in module.children()):
            for name in [name for name, child in module.named_children() if isinstance(child, InProjection)]:
                delattr(module, name)
            module.__class__ = nn.MultiheadAttention  # type: ignore[assignment]

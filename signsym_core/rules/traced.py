"""B for passes that torch.compile or a transform of torch.func traces: values cannot be looked at meanwhile."""

from __future__ import annotations

import itertools
import weakref
from typing import Any

import torch
from torch import Tensor

from signsym_core.rules.snapshot import alike

_handles = itertools.count()
_layers: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def handle_of(layer: Any) -> int:
    """A new number of a converted layer, by which `feedback_while_traced` finds it as long as it lives."""
    handle = next(_handles)
    _layers[handle] = layer
    return handle


# Values cannot be looked at while torch.compile or a transform of torch.func traces them; this operator looks while
# the code runs. It returns a copy, since compiled code may reuse the memory of an operator's result.
@torch.library.custom_op("signsym::feedback", mutates_args=(), tags=(torch.Tag.cudagraph_unsafe,))
def feedback_while_traced(weight: Tensor, handle: int) -> Tensor:
    """A copy of B for `weight`, of the layer with this number."""
    layer = _layers[handle]
    layer_weight = layer.weight
    # The layer's own tensor where it is the same memory: its counter may save a comparison.
    if not torch._C._functorch.is_functorch_wrapped_tensor(layer_weight) and alike(weight, layer_weight):
        weight = layer_weight if weight.data_ptr() == layer_weight.data_ptr() else weight
    matrix: Tensor = layer.state.current(weight, layer.training)
    return matrix.clone()


@feedback_while_traced.register_fake
def _(weight: Tensor, handle: int) -> Tensor:
    return torch.empty_like(weight)

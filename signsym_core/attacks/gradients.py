"""Where an attack's gradient comes from: one context manager over a model for each source."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Any

from torch import nn

from signsym_core.rules.convert import exact_gradient

#: `feedback`: the model's own backward pass, which is the paper's protocol and not the gradient for a rule with
#: B ≠ W. `exact`: the gradient of the same weights, by ordinary autograd. `transfer`: the gradient of another
#: network, a surrogate, which the attacked model meets only when it is scored.
GRADIENTS: Mapping[str, Callable[[nn.Module], AbstractContextManager[Any]]] = {
    "feedback": contextlib.nullcontext,
    "exact": exact_gradient,
    "transfer": exact_gradient,
}

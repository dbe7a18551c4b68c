"""Optimisers of torch without its compiler, which they import for the sake of code that is compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch.optim import Optimizer

#: Methods that torch marks as not to be compiled; calling the mark imports torch._dynamo.
_MARKED = ("add_param_group", "load_state_dict", "state_dict", "zero_grad")


def eager(kind: type[Optimizer]) -> type[Optimizer]:
    """A class like `kind` for training that is never compiled: the same updates, hooks and states.

    The import of torch._dynamo takes a process 2.3 seconds of computing and 150 MB, as long as that of torch itself,
    and each worker of a sweep would pay it at its first step.
    """
    update: Callable[..., Any] = inspect.unwrap(kind.step)

    @torch.no_grad()
    def step(self: Optimizer, closure: Callable[[], float] | None = None) -> Any:
        return update(self, closure)

    methods = {name: inspect.unwrap(getattr(kind, name)) for name in _MARKED}
    return type(kind.__name__, (kind,), {"__module__": __name__, "__doc__": kind.__doc__, "step": step, **methods})

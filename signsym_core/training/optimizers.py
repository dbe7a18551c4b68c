"""The optimiser of a fine-tune: torch's, without the compiler that it imports for the sake of code that is compiled."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from signsym_core.backbones import Model
from signsym_core.rules.convert import converted
from signsym_core.rules.held import parameter_groups
from signsym_core.tasks import Objective
from signsym_core.training.settings import FineTune

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


def optimizer_of(model: Model, objective: Objective, settings: FineTune) -> Optimizer:
    """Adam or AdamW with the rate of the head, of the body, and of what the task learns besides."""
    kind: Any = eager({"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[settings.optimizer])
    groups = parameter_groups(model, list(model.body_parameters()), lr=settings.lr)
    groups += parameter_groups(model, list(model.head_parameters()), lr=settings.head_lr)
    learned = list(objective.parameters())
    if learned:
        groups.append({"params": learned, "lr": objective.lr})
    betas = (settings.beta1, settings.beta2)
    recorded = next(model.parameters()).is_cuda
    optimizer: Optimizer = kind(
        groups, lr=settings.lr, betas=betas, weight_decay=settings.weight_decay, fused=True, capturable=recorded
    )
    return optimizer


def refuse_misfit(model: nn.Module, settings: FineTune) -> None:
    """Raise ValueError, naming the layer, where its rule does not fit the optimizer of the settings."""
    for name, layer in converted(model):
        reason = layer.state.rule.misfit(settings.optimizer, settings.weight_decay)
        if reason is not None:
            raise ValueError(f"layer {name!r}, rule {layer.state.rule.name!r}: {reason}")

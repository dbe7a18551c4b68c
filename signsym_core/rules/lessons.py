"""When the held tensors of learned rules are taught: just before the step of the optimiser that has the layer's weight.

That is once per step, with the gradient of the whole batch, whatever the number of passes, of pieces of the batch, or
of layers that share the weight. An attack, an evaluation and a pass without a step change nothing. A frozen
weight has no gradient: rules that learn from W alone are taught all the same, where the optimiser has the weight.
"""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Iterator
from typing import Any, Protocol

from torch import Tensor, nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from signsym_core.rules.held import LearnedState


class Learner(Protocol):
    """A converted layer under a learned rule."""

    weight: Tensor
    state: Any


_learners: weakref.WeakSet[Any] = weakref.WeakSet()


def enrol(layer: Learner) -> None:
    """From now on the steps of optimisers teach `layer`."""
    _learners.add(layer)


def dismiss(layer: Learner) -> None:
    """No step teaches `layer` any more."""
    _learners.discard(layer)


@contextlib.contextmanager
def unobserved(model: nn.Module) -> Iterator[None]:
    """Inside the block backward passes are no part of a lesson."""
    states = [m.__dict__["state"] for m in model.modules() if isinstance(m.__dict__.get("state"), LearnedState)]
    before = [state.observing for state in states]
    try:
        for state in states:
            state.observing = False
        yield
    finally:
        for state, observing in zip(states, before, strict=True):
            state.observing = observing


def _teach(optimizer: Optimizer, arguments: tuple[Any, ...], keywords: dict[str, Any]) -> None:
    learners = sorted(_learners, key=lambda layer: int(layer.state.index))
    if not learners:
        return
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    sharing: dict[int, list[Any]] = {}
    for layer in learners:
        if id(layer.weight) in group_of:
            sharing.setdefault(id(layer.state.held), []).append(layer)
        else:
            layer.state.untaught |= layer.state.sent
    # The arguments begin with the optimiser.
    closure = arguments[1] if len(arguments) > 1 else keywords.get("closure")
    for layers in sharing.values():
        weight, state = layers[0].weight, layers[0].state
        if closure is not None:
            raise ValueError(
                f"layer {state.name!r} is taught before the step, which computes the gradients itself by its closure; "
                f"compute them first, and call step() without a closure"
            )
        if weight.grad is None and (weight.requires_grad or state.rule.needs_gradient):
            state.held.zero_grad()
            continue
        held = [group_of.get(id(p)) for p in state.held.parameters()]
        if state.rule.follows_optimizer:
            try:
                if None in held:
                    raise ValueError("the optimiser does not have its held tensors: make it after the conversion")
                if not state.rule.decays and any(group and group.get("weight_decay") for group in held):
                    raise ValueError(
                        "its held tensors do not decay, and the optimiser decays them; give it the parameters named "
                        "'feedback.' as a group of their own, with weight_decay=0"
                    )
                state.rule.check_optimizer(optimizer, group_of[id(weight)], held)
            except ValueError as error:
                raise ValueError(f"layer {state.name!r}, rule {state.rule.name!r}: {error}") from None
        state.learn(weight)
        for other in layers[1:]:
            other.state.draws = state.draws


register_optimizer_step_pre_hook(_teach)

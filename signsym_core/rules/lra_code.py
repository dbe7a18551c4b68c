"""The step of `lra` as the official code computes it, by autograd, where that is not what the text says.

Read in nmanchev/lra-rnn at commit da7dcb9, written anew from what it does. Legend as in `rules.lra`.
"""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor
from torch.autograd import grad

from signsym_core.models.recurrence import Recurrence
from signsym_core.rules.whole import add_gradient
from signsym_core.tasks import Objective


class Steps(Protocol):
    """What the official code's step takes from the rule; each as in `rules.lra.LRA`."""

    name: ClassVar[str]

    @property
    def gamma(self) -> float: ...
    @property
    def inner_steps(self) -> int: ...
    @property
    def alpha(self) -> float: ...
    def normalised(self, gradient: Tensor) -> Tensor: ...
    def loss_of(self, difference: Tensor) -> Tensor: ...


def code_step(rule: Steps, network: Recurrence, objective: Objective, rows: Tensor, labels: Tensor) -> Tensor:
    """Fill `.grad` as the official code does; the loss, detached. Raises ValueError for more sequences than units."""
    w_hh, w_xh, head = network.recurrent.weight, network.inputs.weight, network.head
    count, units = rows.shape[1], len(w_hh)
    if count > units:
        raise ValueError(
            f"rule {rule.name!r} with variant 'code' expects at most as many sequences in a batch as units, {units}: "
            f"it takes a diagonal of a matrix [sequences, units]; got {count}. Take a smaller batch_size, or variant "
            f"'text'"
        )
    with torch.enable_grad():
        currents = network.inputs(rows)
        states, sums = [torch.zeros_like(currents[0])], []
        for current in currents:
            sums.append(network.recurrent(states[-1]) + current)
            states.append(torch.tanh(sums[-1]))
        outputs = head(states[-1])
        task_loss = objective(outputs, labels)
        learned = [head.bias, *(p for p in objective.parameters() if p.requires_grad)]
        by_head, *gradients = grad(task_loss, [head.weight, *learned], retain_graph=True)
        if rule.alpha:
            by_head = by_head + _of_omega(rule, task_loss, sums[-1].detach(), outputs, head.weight, head.weight)
        add_gradient(head.weight, rule.normalised(by_head))
        for parameter, gradient in zip(learned, gradients, strict=True):
            add_gradient(parameter, gradient)

        # The target is no constant: it keeps its graph, and local losses are differentiated through it too.
        moved, loss = sums[-1], task_loss
        for _ in range(rule.inner_steps):
            moved = _moved(rule, loss, moved, outputs, head.weight)
            outputs = head(torch.tanh(moved))
            loss = objective(outputs, labels)
        loss = rule.loss_of(states[-1] - torch.tanh(moved))

        for t in reversed(range(1, len(sums))):
            # Through all earlier steps, as backpropagation through time would.
            by_w_hh, by_w_xh, by_bias = grad(loss, [w_hh, w_xh, network.inputs.bias], retain_graph=True)
            if rule.alpha and t < len(sums) - 1 and loss != 0:
                by_w_xh = by_w_xh + _of_omega(rule, loss, sums[t], sums[t + 1], w_hh, w_xh)
            add_gradient(w_hh, rule.normalised(by_w_hh))
            add_gradient(w_xh, rule.normalised(by_w_xh))
            add_gradient(network.inputs.bias, by_bias)
            moved, reached = sums[t - 1], states[t + 1]
            for _ in range(rule.inner_steps):
                moved = _moved(rule, loss, moved, reached, w_hh)
                reached = torch.tanh(network.recurrent(torch.tanh(moved)) + currents[t])
                # With the state as it was, not with its target: every further move pulls back.
                loss = rule.loss_of(states[t + 1] - reached)
    return task_loss.detach()


def _moved(rule: Steps, loss: Tensor, h: Tensor, above: Tensor, weight: Tensor) -> Tensor:
    """h after one move, with its graph."""
    (gradient,) = grad(loss, h, retain_graph=True)
    if rule.alpha:
        gradient = gradient + _of_omega(rule, loss, h, above, weight, h)
    return h - rule.gamma * rule.normalised(gradient)


def _of_omega(rule: Steps, loss: Tensor, h: Tensor, above: Tensor, weight: Tensor, variable: Tensor) -> Tensor:
    """The gradient by `variable` of alpha Ω, with one factor of tanh' for each sequence: the diagonal of [n, d]."""
    (delta,) = grad(loss, above, retain_graph=True)
    factors = torch.diag(1 - torch.tanh(h).square())
    omega = ((delta @ weight * factors.unsqueeze(1)).norm() / delta.norm() - 1).square()
    (gradient,) = grad(omega, variable, retain_graph=True)
    return torch.nan_to_num(rule.alpha * gradient, nan=0.0)

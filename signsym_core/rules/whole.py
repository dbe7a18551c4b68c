"""Rules of a whole network: every layer is left to ordinary autograd, and something else than a matrix B is another."""

from __future__ import annotations

import dataclasses
from abc import abstractmethod

import torch
from torch import Tensor, nn

from signsym_core.registry import require
from signsym_core.rules.base import Rule
from signsym_core.tasks import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class WholeRule(Rule):
    """A rule that changes no layer's backward pass: inside each layer B = W."""

    exact = True
    by_layer = False

    @property
    def trains_as_bp(self) -> bool:
        return False

    def __post_init__(self) -> None:
        super().__post_init__()
        require(not self.bp_layers, "bp_layers", f"nothing: rule {self.name!r} serves no single layers", self.bp_layers)

    def check_network(self, network: nn.Module) -> None:
        """Raise ParameterError or UnknownNameError where the rule cannot train `network`; before it is converted."""

    def build(self, weight: Tensor, draw: Tensor | None, size: Tensor | float, out: Tensor) -> None:
        out.copy_(weight)


@dataclasses.dataclass(frozen=True, kw_only=True)
class StepRule(WholeRule):
    """A rule that is a way to fill `.grad`, such as a target-propagation or a forward-only rule: its `step`.

    It has no backward pass of its own, so an attack along its feedback is one along the exact gradient, and is
    computed as that.
    """

    @abstractmethod
    def step(
        self, model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, micro_batch: int | None
    ) -> Tensor:
        raise NotImplementedError


def add_gradient(parameter: Tensor, gradient: Tensor) -> None:
    """Add a gradient that was computed by hand to `parameter.grad`, in the parameter's own memory order.

    Fused optimisers on a CPU read `.grad` in memory order: with other strides than the parameter's the update would be
    applied to the wrong entries, silently. Raises ValueError for another shape.
    """
    if gradient.shape != parameter.shape:
        raise ValueError(f"expected a gradient of shape {list(parameter.shape)}, got {list(gradient.shape)}")
    if parameter.grad is None:
        parameter.grad = torch.zeros_like(parameter, requires_grad=False)
    parameter.grad.add_(gradient)

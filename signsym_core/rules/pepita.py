"""PEPITA: a second forward pass on an input moved by the error takes the place of the backward pass."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.models.outputs import outputs_of
from signsym_core.registry import ParameterError, Positive
from signsym_core.rules.base import LEVELS, fill_levels
from signsym_core.rules.feedback import FeedbackLayer
from signsym_core.rules.point_names import residual_blocks
from signsym_core.rules.whole import StepRule, add_gradient
from signsym_core.tasks import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pepita(StepRule):
    """PEPITA, ∂W_l = (h_l - h'_l) x'_lᵀ / n, and ∂W = e' x'ᵀ / n in the last layer; x'_l what enters layer l and h'_l
    its activity in a second pass on x + F e.

    e = n ∂L/∂outputs of the first pass, e' of the second; F [k, pixels] fixed, U(-s, s), s = strength · √(6 / pixels),
    for pixels in [0, 1]; both passes have one dropout mask. The activity of a layer is its output after the modules
    that keep its shape: normalisation, activation, dropout. Scales and shifts of normalisations are not trained.
    """

    name = "pepita"
    label = "PEPITA"
    citation = "Dellaferrera, Kreiman 2022, Error-driven input modulation, ICML 162, and its code GiorgiaD/PEPITA"

    #: Size of F over He's uniform initialisation of a first layer.
    strength: Positive = 0.05

    def check_network(self, network: nn.Module) -> None:
        blocks = residual_blocks(network)
        if blocks:
            raise ParameterError(
                f"rule {self.name!r} expects a plain network, where a layer has one activity; got {blocks[0]!r}, a "
                f"residual block"
            )

    def step(
        self, model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, micro_batch: int | None
    ) -> Tensor:
        """The batch passes whole, whatever `micro_batch`: there is no graph, but both passes' activities are kept."""
        count = len(images)
        with torch.no_grad():
            with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
                first = _Recorded(model, images)
            loss, error = _error(objective, first.outputs, labels, learn=True)
            moved = images + (count * error @ self._matrix(model, images, error)).view_as(images)
            second = _Recorded(model, moved)
            _, error = _error(objective, second.outputs, labels, learn=False)
        for (layer, _, activity), (_, entered, moved_activity) in zip(first.calls, second.calls, strict=True):
            is_last = layer is second.calls[-1][0]
            _add(layer, entered, error if is_last else (activity - moved_activity) / count)
        return loss

    def _matrix(self, model: nn.Module, images: Tensor, error: Tensor) -> Tensor:
        """F [k, pixels]: made again for every step, since it depends on the seed alone."""
        seed = next(module.state.seed for module in model.modules() if isinstance(module, FeedbackLayer))
        matrix = torch.empty(error.shape[1], math.prod(images.shape[1:]))
        fill_levels(matrix, seeds.generator(seed, "pepita", *matrix.shape))
        limit = self.strength * math.sqrt(6 / matrix.shape[1])
        return matrix.mul_(2 / LEVELS).sub_(1).mul_(limit).to(error.device, error.dtype)


class _Recorded:
    """A forward pass: its outputs, and of every call of a layer with weights what entered it and its activity."""

    def __init__(self, model: nn.Module, images: Tensor) -> None:
        self.calls: list[tuple[FeedbackLayer, Tensor, Tensor]] = []
        self._latest: Tensor | None = None
        handles = [module.register_forward_hook(self._see) for module in _leaves(model)]
        try:
            self.outputs = outputs_of(model, images)
        finally:
            for handle in handles:
                handle.remove()
        last, layers = self.calls[-1], [layer for layer, *_ in self.calls]
        if last[2].shape != self.outputs.shape or layers.count(last[0]) != 1:
            raise ValueError(
                f"rule 'pepita' needs a network whose outputs {list(self.outputs.shape)} are those of its last layer, "
                f"called once; got {list(last[2].shape)} from {layers.count(last[0])} calls"
            )

    def _see(self, module: nn.Module, inputs: Any, output: object) -> None:
        if self.calls and not _same(next(iter(inputs), None), self._latest):
            name = repr(module.state.name) if isinstance(module, FeedbackLayer) else f"a {type(module).__name__}"
            raise ValueError(
                f"rule 'pepita' needs a network of modules one after the other, where a layer's activity is the output "
                f"of the modules behind it; after layer {self.calls[-1][0].state.name!r}, what enters {name} is of no "
                f"module: F.relu in a forward method, a sum, a recurrence?"
            )
        self._latest = output if isinstance(output, Tensor) else None
        if isinstance(module, FeedbackLayer):
            assert isinstance(output, Tensor)
            self.calls.append((module, inputs[0], output))
        elif self.calls and isinstance(output, Tensor) and output.shape == self.calls[-1][2].shape:
            self.calls[-1] = (*self.calls[-1][:2], output)


def _same(entered: object, output: Tensor | None) -> bool:
    """Whether a tensor is the one that a module made, in any shape."""
    if output is None or not isinstance(entered, Tensor) or entered.numel() != output.numel():
        return False
    # Flattened in another memory format it is a copy.
    return entered.data_ptr() == output.data_ptr() or torch.equal(entered.flatten().to(output.dtype), output.flatten())


def _leaves(model: nn.Module) -> Iterator[nn.Module]:
    return (module for module in model.modules() if isinstance(module, FeedbackLayer) or not list(module.children()))


def _error(objective: Objective, outputs: Tensor, labels: Tensor, *, learn: bool) -> tuple[Tensor, Tensor]:
    """The loss, and ∂L/∂outputs; with `learn` the objective's own parameters get their gradients."""
    with torch.enable_grad():
        variable = outputs.detach().requires_grad_()
        loss = objective(variable, labels)
        if learn:
            loss.backward()
            assert variable.grad is not None
            return loss.detach(), variable.grad
        return loss.detach(), torch.autograd.grad(loss, variable)[0]


def _add(layer: FeedbackLayer, entered: Tensor, delta: Tensor) -> None:
    """Add the gradient of <δ, layer(x)> to the layer's parameters: δ xᵀ and Σ δ."""
    parameters = [parameter for parameter in layer.parameters(recurse=False) if parameter.requires_grad]
    if not parameters:
        return
    # Of passes in bfloat16 both are in fewer bits than the weights.
    entered, delta = entered.to(layer.weight.dtype), delta.to(layer.weight.dtype)
    with torch.enable_grad():
        gradients = torch.autograd.grad(layer(entered), parameters, delta)
    for parameter, gradient in zip(parameters, gradients, strict=True):
        add_gradient(parameter, gradient)

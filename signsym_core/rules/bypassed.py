"""Converted layers that the network goes around, so that no rule would serve them."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor, nn

from signsym_core.models.outputs import outputs_of
from signsym_core.rules.convert import converted


class BypassedLayerError(ValueError):
    """The network uses the weight of a converted layer without calling the layer, so that it would be a BP layer."""

    def __init__(self, names: list[str]) -> None:
        super().__init__(
            f"layers {names} were converted, but the network uses their weights without calling them, so their "
            f"backward pass would stay BP in silence; name them in the rule's parameter bp_layers"
        )


def unserved(model: nn.Module) -> list[str]:
    """Names of the converted layers, except BP's, whose forward pass has not run since the conversion.

    After a forward pass of the model these are the unused layers and the bypassed ones, whose weight the network uses
    directly: see `refuse_bypassed`.
    """
    layers = [(name, layer) for name, layer in converted(model) if not layer.state.rule.exact]
    return [name for name, layer in layers if not layer.state.service.ran]


def refuse_bypassed(model: nn.Module, images: Tensor) -> None:
    """Raise BypassedLayerError for layers whose weights `model` uses for `images` without calling the layers.

    Call it after a forward pass. The model runs again only where some layer has never run; that layer is bypassed if
    the outputs depend on its weight.
    """
    names = unserved(model)
    if not names:
        return
    weights = [cast(Tensor, model.get_submodule(name).weight) for name in names]
    trainable = [weight.requires_grad for weight in weights]
    try:
        for weight in weights:
            weight.requires_grad_()
        with torch.enable_grad():
            outputs = outputs_of(model, images)
        taking_part = torch.autograd.grad(outputs.sum(), weights, allow_unused=True) if outputs.requires_grad else []
    finally:
        for weight, before in zip(weights, trainable, strict=True):
            weight.requires_grad_(before)
    # What that run has called is a layer that only passes without gradients go around, such as torch's fused encoder.
    still = set(unserved(model))
    bypassed = [name for name, grad in zip(names, taking_part, strict=False) if grad is not None and name in still]
    if bypassed:
        raise BypassedLayerError(bypassed)


def refuse_bypassed_by_gradient(model: nn.Module) -> None:
    """After a backward pass: raise BypassedLayerError for layers with a gradient that no pass has called."""
    # An unused layer, such as an auxiliary head, has no gradient.
    bypassed = [name for name in unserved(model) if model.get_submodule(name).weight.grad is not None]
    if bypassed:
        raise BypassedLayerError(bypassed)

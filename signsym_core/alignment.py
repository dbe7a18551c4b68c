"""How far a rule's gradients are from BP's, layer by layer, on one batch."""

from __future__ import annotations

import dataclasses

import torch
from torch import Tensor, nn

from signsym_core.outputs import outputs_of
from signsym_core.penalty import penalised
from signsym_core.rules.base import Rule
from signsym_core.rules.convert import exact_gradient, stepping_rule
from signsym_core.tasks import Objective


@dataclasses.dataclass(frozen=True, kw_only=True)
class LayerAlignment:
    """The gradient g of one weight under the rule, beside BP's gradient g* of the same weights on the same batch."""

    layer: str
    #: |g| and |g*|, Euclidean.
    norm: float
    norm_bp: float
    #: <g, g*> / (|g| |g*|); NaN where one of them is 0.
    cosine: float
    #: Share of the entries where sign(g) = sign(g*).
    sign_agreement: float


def layer_alignment(model: nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> list[LayerAlignment]:
    """One row for each weight with two or more dimensions, in the order of the network.

    Training is not affected: gradients, batch statistics and random states are restored.
    """
    weights = [(n.removesuffix(".weight"), p) for n, p in model.named_parameters() if p.ndim > 1 and p.requires_grad]
    parameters = [parameter for _, parameter in weights]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [images.device] if images.device.type == "cuda" else []

    def gradients() -> tuple[Tensor, ...]:
        # The same random state for both passes: the same dropout masks.
        with torch.random.fork_rng(devices=devices):
            loss = penalised(model, objective(outputs_of(model, images), labels))
        return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)

    rule = stepping_rule(model)
    actual = gradients() if rule is None else _of_step(rule, model, objective, images, labels, parameters)
    with exact_gradient(model):
        exact = gradients()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return [_row(name, g, g_bp) for (name, _), g, g_bp in zip(weights, actual, exact, strict=True)]


def _of_step(
    rule: Rule, model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, parameters: list[nn.Parameter]
) -> tuple[Tensor, ...]:
    """The gradients that a rule's step of its own would give; those that the parameters have are not touched."""
    everything = [*model.parameters(), *objective.parameters()]
    before = [parameter.grad for parameter in everything]
    try:
        for parameter in everything:
            parameter.grad = None
        with torch.random.fork_rng(devices=[images.device] if images.device.type == "cuda" else []):
            rule.step(model, objective, images, labels, None)
        return tuple(torch.zeros_like(p) if p.grad is None else p.grad for p in parameters)
    finally:
        for parameter, gradient in zip(everything, before, strict=True):
            parameter.grad = gradient


def _row(name: str, gradient: Tensor, exact: Tensor) -> LayerAlignment:
    # In double: the squares of a feedback gradient of an unscaled rule leave float32.
    g, g_bp = gradient.detach().double().flatten(), exact.detach().double().flatten()
    norm, norm_bp = g.norm(), g_bp.norm()
    return LayerAlignment(
        layer=name,
        norm=float(norm),
        norm_bp=float(norm_bp),
        cosine=float(g @ g_bp / (norm * norm_bp)),
        sign_agreement=float((g.sign() == g_bp.sign()).double().mean()),
    )

"""How far a rule's gradients are from BP's, layer by layer, on one batch."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.outputs import outputs_of
from signsym_core.penalty import penalised
from signsym_core.rules.base import Rule
from signsym_core.rules.convert import converted, exact_gradient, stepping_rule
from signsym_core.rules.held import unobserved, weights_of
from signsym_core.tasks import Objective

#: An epoch's log uses at least so many images, and else one in SHARE of the epoch's: two passes for each.
LEAST, SHARE = 2, 400


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


def epoch_alignment(
    model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, images_of_epoch: int
) -> list[dict[str, Any]]:
    """The rows that an epoch stores, one for each weight: `layer_alignment`, and B beside W.

    `angle` is that of B to W in degrees, 0 under BP, and `feedback_ratio` |B| / |W|; both are None where no matrix B
    stands for the weight. Of the batch so many images are used that both passes over them cost less than a hundredth of
    an epoch of `images_of_epoch` images, but at least LEAST. Numbers that are not finite are None.
    """
    few = slice(max(LEAST, images_of_epoch // SHARE))
    matrices = _beside_weights(model)
    rows = layer_alignment(model, objective, images[few], labels[few])
    values = [
        {**dataclasses.asdict(row), "ratio": row.norm / row.norm_bp if row.norm_bp else None}
        | dict(zip(("angle", "feedback_ratio"), matrices.get(row.layer, (None, None)), strict=True))
        for row in rows
    ]
    # JSON and tables have no NaN.
    return [{n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()} for row in values]


@torch.no_grad()
def _beside_weights(model: nn.Module) -> dict[str, tuple[float, float]]:
    """The angle of B to W in degrees, and |B| / |W|, of each layer whose B is a matrix of its own or W."""
    measured = {}
    for name, layer in converted(model):
        if not layer.state.rule.by_layer:
            continue
        weight = layer.weight.detach()
        matrix = weight if layer.state.rule.exact else layer.state.peek(layer.weight, layer.training)
        if matrix is weight:
            measured[name] = (0.0, 1.0)
            continue
        (b, b_norm), (w, w_norm) = _unit(matrix), _unit(weight)
        # 2 atan(|b - w| / |b + w|), which is exact for small angles, where the cosine is not.
        angle = math.degrees(2 * math.atan2(float((b - w).norm()), float((b + w).norm())))
        measured[name] = (angle, b_norm / w_norm if w_norm else math.nan)
    return measured


def layer_alignment(model: nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> list[LayerAlignment]:
    """One row for each weight of the network with two or more dimensions, in the order of the network.

    Training is not affected: gradients, batch statistics and random states are restored.
    """
    weights = [(n.removesuffix(".weight"), p) for n, p in weights_of(model) if p.ndim > 1 and p.requires_grad]
    parameters = [parameter for _, parameter in weights]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    # A rule that draws at every forward pass counts the passes of training alone.
    draws = [(layer.state, layer.state.draws) for _, layer in converted(model)]
    devices = [images.device] if images.device.type == "cuda" else []

    def gradients() -> tuple[Tensor, ...]:
        # The same random state for both passes: the same dropout masks.
        with torch.random.fork_rng(devices=devices):
            loss = penalised(model, objective(outputs_of(model, images), labels))
        return torch.autograd.grad(loss, parameters, allow_unused=True, materialize_grads=True)

    rule = stepping_rule(model)
    with unobserved(model):
        actual = gradients() if rule is None else _of_step(rule, model, objective, images, labels, parameters)
    with exact_gradient(model):
        exact = gradients()
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    for state, number in draws:
        state.draws = number
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
    (g, norm), (g_bp, norm_bp) = _unit(gradient), _unit(exact)
    return LayerAlignment(
        layer=name,
        norm=norm,
        norm_bp=norm_bp,
        cosine=float((g @ g_bp).clamp(-1, 1)),
        sign_agreement=int((gradient.sign() == exact.sign()).sum()) / gradient.numel(),
    )


def _unit(tensor: Tensor) -> tuple[Tensor, float]:
    """The entries of `tensor` as a vector of length 1, NaN where it is 0, and its length."""
    flat = tensor.detach().flatten()
    # In double: the squares of a feedback gradient of an unscaled rule leave float32.
    norm = float(torch.linalg.vector_norm(flat, dtype=torch.float64))
    return flat / (norm or math.nan), norm

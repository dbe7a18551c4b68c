"""How far a rule's gradients are from BP's, layer by layer, on one batch."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from signsym_core.models.outputs import outputs_of
from signsym_core.models.penalty import penalised
from signsym_core.rules.base import Rule
from signsym_core.rules.convert import converted, draws_kept, exact_gradient, stepping_rule
from signsym_core.rules.held import weights_of
from signsym_core.rules.lessons import unobserved
from signsym_core.rules.points import points_of
from signsym_core.tasks import Objective
from signsym_core.training.angles import beside_weights, pieces, products

#: An epoch's table uses at least so many images, and else one in SHARE of the epoch's.
LEAST, SHARE = 2, 1000


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
    stands for the weight. Of the batch as many images are used as one in SHARE of the epoch's `images_of_epoch`, but at
    least LEAST. Numbers that are not finite are None.
    """
    few = slice(max(LEAST, images_of_epoch // SHARE))
    matrices = beside_weights(model)
    rows = layer_alignment(model, objective, images[few], labels[few])
    values = [
        {**dataclasses.asdict(row), "ratio": row.norm / row.norm_bp if row.norm_bp else None}
        | dict(zip(("angle", "feedback_ratio"), matrices.get(row.layer, (None, None)), strict=True))
        for row in rows
    ]
    # JSON and tables have no NaN.
    return [{n: None if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()} for row in values]


def layer_alignment(model: nn.Module, objective: Objective, images: Tensor, labels: Tensor) -> list[LayerAlignment]:
    """One row for each weight of the network with two or more dimensions, in the order of the network.

    Training is not affected: gradients, batch statistics and random states are restored.
    """
    weights = [(n.removesuffix(".weight"), p) for n, p in weights_of(model) if p.ndim > 1 and p.requires_grad]
    parameters = [parameter for _, parameter in weights]
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    devices = [images.device] if images.device.type == "cuda" else []

    def outputs_loss() -> Tensor:
        # The same random state for every pass: the same dropout masks.
        with torch.random.fork_rng(devices=devices):
            return penalised(model, objective(outputs_of(model, images), labels))

    def gradients(loss: Tensor, again: bool = False) -> tuple[Tensor, ...]:
        return torch.autograd.grad(loss, parameters, retain_graph=again, allow_unused=True, materialize_grads=True)

    rule = stepping_rule(model)
    with draws_kept(model):
        if rule is None and not points_of(model):
            # One forward pass for both: what goes back is B, and then W in its place.
            with unobserved(model), _replaceable(model) as put_weights:
                loss = outputs_loss()
                actual = exact = gradients(loss, again=put_weights is not None)
                if put_weights is not None:
                    put_weights()
                    exact = gradients(loss)
        else:
            with unobserved(model):
                if rule is None:
                    actual = gradients(outputs_loss())
                else:
                    actual = _of_step(rule, model, objective, images, labels, parameters)
            with exact_gradient(model):
                exact = gradients(outputs_loss())
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    return [_row(name, g, g_bp) for (name, _), g, g_bp in zip(weights, actual, exact, strict=True)]


@contextlib.contextmanager
def _replaceable(model: nn.Module) -> Iterator[Callable[[], None] | None]:
    """Inside the block forward passes keep B in tensors to which the given function gives W instead; None under BP."""
    layers = [layer for _, layer in converted(model) if not layer.plain]
    before = [layer.state.stand_in for layer in layers]
    with torch.no_grad():
        # A tensor of its own for what the pass keeps, but the numbers of B.
        views = [layer.state.peek(layer.weight, layer.training).detach() for layer in layers]

    def put_weights() -> None:
        for layer, view in zip(layers, views, strict=True):
            # Through `data`: autograd would refuse a saved tensor that has changed, and here it is meant to.
            view.data = layer.weight.detach()

    try:
        for layer, view in zip(layers, views, strict=True):
            layer.state.stand_in = view
        yield put_weights if layers else None
    finally:
        for layer, matrix in zip(layers, before, strict=True):
            layer.state.stand_in = matrix


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
    square, product, square_bp = products(gradient, exact)
    same = torch.zeros((), dtype=torch.int64, device=gradient.device)
    for few, few_bp in pieces(gradient, exact):
        same = same + (few.sign() == few_bp.sign()).count_nonzero()
    norm, norm_bp = math.sqrt(square), math.sqrt(square_bp)
    # NaN where an entry is not finite, which `min` and `max` would hide.
    cosine = product / norm / norm_bp if norm and norm_bp else math.nan
    return LayerAlignment(
        layer=name,
        norm=norm,
        norm_bp=norm_bp,
        cosine=cosine if math.isnan(cosine) else min(1.0, max(-1.0, cosine)),
        sign_agreement=int(same) / gradient.numel(),
    )

"""Angles between tensors, and of each layer's B to its W, in double precision."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from signsym_core.rules.convert import converted

#: Entries of a gradient or a matrix that are looked at together.
PIECE = 1 << 16
#: The cosine from which on an angle is not taken from it: 0.003 degrees.
CLOSE = 1 - 1e-9


@torch.no_grad()
def beside_weights(model: nn.Module) -> dict[str, tuple[float, float]]:
    """The angle of B to W in degrees, and |B| / |W|, of each layer whose B is a matrix of its own or W.

    A rule's `bp_layers` send W down, as layers do that a mixed rule gives to BP.
    """
    layers = converted(model)
    measured = {}
    if any(layer.state.rule.bp_layers for _, layer in layers):
        known = {name for name, _ in layers}
        plain = (name for name, module in model.named_modules() if isinstance(module, nn.Linear | nn.Conv2d))
        measured = {name: (0.0, 1.0) for name in plain if name not in known}
    for name, layer in layers:
        if not layer.state.rule.by_layer:
            continue
        weight = layer.weight.detach()
        matrix = weight if layer.state.rule.exact else layer.state.peek(layer.weight, layer.training)
        if matrix is weight:
            measured[name] = (0.0, 1.0)
            continue
        b_square, product, w_square = products(matrix, weight)
        b_norm, w_norm = math.sqrt(b_square), math.sqrt(w_square)
        if not (b_norm and w_norm):
            measured[name] = (math.nan, b_norm / w_norm if w_norm else math.nan)
            continue
        cosine = product / b_norm / w_norm
        # The cosine of a tiny angle has lost it.
        angle = math.degrees(math.acos(max(-1.0, cosine))) if cosine < CLOSE else _tiny(matrix, b_norm, weight, w_norm)
        measured[name] = (angle, b_norm / w_norm)
    return measured


def _tiny(matrix: Tensor, b_norm: float, weight: Tensor, w_norm: float) -> float:
    """The angle in degrees, exact where it is small: 2 atan(|b - w| / |b + w|) of b = B / |B| and w = W / |W|."""
    difference = total = torch.zeros((), dtype=torch.float64, device=weight.device)
    for few_b, few_w in pieces(matrix, weight):
        b, w = few_b.double() / b_norm, few_w.double() / w_norm
        difference, total = difference + (b - w).square().sum(), total + (b + w).square().sum()
    return math.degrees(2 * math.atan2(math.sqrt(float(difference)), math.sqrt(float(total))))


def products(one: Tensor, other: Tensor) -> tuple[float, float, float]:
    """<a, a>, <a, b> and <b, b> in double precision; one transfer from a GPU."""
    sums = torch.zeros(3, dtype=torch.float64, device=one.device)
    for few, few_other in pieces(one, other):
        # Of vectors: as a product of matrices it takes several times as long.
        a, b = few.double(), few_other.double()
        sums = sums + torch.stack((a.dot(a), a.dot(b), b.dot(b)))
    square, product, square_other = sums.tolist()
    return square, product, square_other


def pieces(one: Tensor, other: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """The entries of both as vectors, piece by piece: what fits into a processor's cache takes a third of the time."""
    return zip(one.detach().flatten().split(PIECE), other.detach().flatten().split(PIECE), strict=True)

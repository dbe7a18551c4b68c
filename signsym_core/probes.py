"""What a model's backward pass is worth, measured on the model itself: against finite differences, against itself.

Legend: n images; g what the model's own backward pass gives at an image, g* the exact gradient of the same weights; s
the loss of the probe, one number for each image. All of it in double precision, on a copy of the model, but where said.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.frozen import frozen
from signsym_core.outputs import outputs_of, refuse_non_finite
from signsym_core.retrieval import signs
from signsym_core.rules.convert import converted, exact_gradient
from signsym_core.tasks import TASKS, Task
from signsym_core.validation import check_images, check_labels, check_module

#: Half the distance of the two points of a finite difference, L∞ in [0, 1] pixels.
STEP = 1e-3
#: Random directions of `Probe.direction`.
DIRECTIONS = 4
#: Images in one pass.
BATCH = 64

Array = NDArray[np.float64]
Mask = NDArray[np.bool_]
#: (outputs [n, k], targets) to a loss [n] that a single image's attack would raise.
Loss = Callable[[Tensor, Tensor], Tensor]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Probe:
    """One number for each image, [n]."""

    #: ρ = (s(x + hu) - s(x - hu)) / (2h <g, u>), u = sign g: 1 for the gradient; 0 where there is no g.
    rho: Array
    #: Correlation, over random sign vectors u, of (s(x + hu) - s(x - hu)) / 2h with <g, u>, which estimates cos(g, g*)
    #: without knowing g*; NaN where one of the two is always 0.
    direction: Array
    #: cos(g, g'), two backward passes at the same image; 1 for a gradient, NaN where one of them is 0.
    repeat: Array
    #: Whether the gradient that attacks follow is 0, NaN or infinite, in the model's own precision.
    broken: Mask
    #: Whether two forward passes of the same image differ, in the model's own precision.
    unsteady: Mask
    #: η = <g*, sign g> / |g*|₁: what a sign step along g gains of what one along g* does, to first order. None where
    #: the model is not a converted one, so that only its own backward pass is known.
    efficiency: Array | None
    #: cos(g, g*) and |g| / |g*|; None likewise.
    cosine: Array | None
    norm_ratio: Array | None


def measure(
    model: nn.Module, images: Tensor, labels: Tensor, *, task: str | Task = "classification", step: float = STEP
) -> Probe:
    """Probe `model` at `images`, float [n, channels, height, width] in [0, 1].

    For a classifier s is the log-odds against the label(s), log((1 - p) / p): it rises with the cross-entropy, with a
    gradient along the same line, and does not saturate where the model is sure, so that a finite difference of it can
    be taken. For a task that retrieves s = -<sign f(x), f>: away from the image's own clean code. Images without any
    label are left out.

    The model is left as it was found. Raises ValueError for inputs that do not fit (see `signsym_core.attack`) and for
    outputs that are not finite or do not fit the labels, and RuntimeError of torch where the model cannot run in double
    precision. Source of ρ: the gradient check of any textbook, applied to inputs; Athalye, Carlini, Wagner 2018 ask for
    gradients that are gradients.
    """
    judge = task if isinstance(task, Task) else TASKS.build(task)
    check_module(model)
    check_images(images)
    check_labels(labels, images)
    if labels.ndim == 2 and not judge.retrieves:
        has_label = labels.any(dim=1)
        images, labels = images[has_label], labels[has_label]
    if not len(images):
        raise ValueError("a probe needs at least one image with a label, got none")
    with frozen(model):
        outputs, again = _outputs(model, images), _outputs(model, images)
        judge.check(outputs, labels)
        refuse_non_finite(torch.cat([outputs, again]), what="images, each shown twice")
        targets = signs(outputs) if judge.retrieves else labels
        loss: Loss = away_from_code if judge.retrieves else log_odds
        followed: Loss = loss if judge.retrieves else lambda o, t: judge.attack_loss(o, t).unsqueeze(0)
        attacked = _gradient(model, images, targets, followed)
        double = copy.deepcopy(model).double()
    with frozen(double):
        x = images.double()
        ours = _gradient(double, x, targets, loss)
        rho = _rho(double, x, targets, loss, ours, step)
        direction = _direction(double, x, targets, loss, ours, step)
        repeat = _cosine(ours, _gradient(double, x, targets, loss))
        efficiency = cosine = ratio = None
        if converted(double):
            exact = _gradient(double, x, targets, loss, exact_gradient)
            efficiency = _numpy((exact * ours.sign()).sum(1) / exact.abs().sum(1))
            cosine, ratio = _numpy(_cosine(ours, exact)), _numpy(_length(ours) / _length(exact))
    finite = attacked.isfinite().all(dim=1)
    return Probe(
        rho=_numpy(rho),
        direction=_numpy(direction),
        repeat=_numpy(repeat),
        broken=(~finite | (attacked == 0).all(dim=1)).cpu().numpy(),
        unsteady=(outputs != again).any(dim=1).cpu().numpy(),
        efficiency=efficiency,
        cosine=cosine,
        norm_ratio=ratio,
    )


def log_odds(outputs: Tensor, labels: Tensor) -> Tensor:
    """[n]: log((1 - p) / p), p the softmax probability of the label, or of all labels of 0/1 [n, classes] together."""
    if labels.ndim == 1:
        labels = torch.nn.functional.one_hot(labels, outputs.shape[1])
    wanted = labels > 0
    others = outputs.masked_fill(wanted, -torch.inf).logsumexp(dim=1)
    return others - outputs.masked_fill(~wanted, -torch.inf).logsumexp(dim=1)


def away_from_code(outputs: Tensor, codes: Tensor) -> Tensor:
    """[n]: -<b, f(x)>, with b the code ±1 [n, bits]."""
    return -(outputs * codes).sum(dim=1)


def _rho(model: nn.Module, images: Tensor, targets: Tensor, loss: Loss, gradient: Tensor, step: float) -> Tensor:
    direction = gradient.sign()
    moved = step * direction.view_as(images)
    upper, lower = loss(_outputs(model, images + moved), targets), loss(_outputs(model, images - moved), targets)
    promised = 2 * step * gradient.abs().sum(dim=1)
    # A gradient that is 0 or no number promises nothing, and a model that changes without one is not differentiated.
    kept = promised.isfinite() & (promised > 0)
    return torch.where(kept, (upper - lower) / torch.where(kept, promised, torch.ones_like(promised)), 0.0)


def _direction(model: nn.Module, images: Tensor, targets: Tensor, loss: Loss, gradient: Tensor, step: float) -> Tensor:
    generator = seeds.generator(0, "probe", device=images.device)
    measured, promised = [], []
    for _ in range(DIRECTIONS):
        ups = torch.randint(2, gradient.shape, generator=generator, device=images.device).double() * 2 - 1
        moved = step * ups.view_as(images)
        upper, lower = loss(_outputs(model, images + moved), targets), loss(_outputs(model, images - moved), targets)
        measured.append((upper - lower) / (2 * step))
        promised.append((gradient * ups).sum(dim=1))
    return _cosine(torch.stack(measured, dim=1), torch.stack(promised, dim=1))


def _cosine(one: Tensor, other: Tensor) -> Tensor:
    # Vectors of length 1 first: the product of two lengths may leave the range of numbers.
    return (one / _length(one).unsqueeze(1) * (other / _length(other).unsqueeze(1))).sum(dim=1)


def _length(vectors: Tensor) -> Tensor:
    found: Tensor = torch.linalg.vector_norm(vectors, dim=1)
    return found


def _outputs(model: nn.Module, images: Tensor) -> Tensor:
    with torch.no_grad():
        return torch.cat([outputs_of(model, part) for part in images.split(BATCH)])


def _gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Loss,
    source: Callable[[nn.Module], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Tensor:
    """[n, pixels]: the gradient of each image's loss, as the model's backward pass gives it in the context `source`."""
    parts = []
    for part, target in zip(images.split(BATCH), targets.split(BATCH), strict=True):
        with torch.enable_grad(), source(model):
            variable = part.detach().clone().requires_grad_()
            total = loss(outputs_of(model, variable), target).sum()
            # Outputs that do not depend on the image at all have no graph: their gradient is 0.
            if total.requires_grad:
                (found,) = torch.autograd.grad(total, variable, allow_unused=True, materialize_grads=True)
            else:
                found = torch.zeros_like(variable)
        parts.append(found.flatten(1))
    return torch.cat(parts)


def _numpy(values: Tensor) -> Array:
    found: Array = values.detach().double().cpu().numpy()
    return found

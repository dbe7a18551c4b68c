"""Probes of a model's backward pass: compared with finite differences of the model, and with a second backward pass.

Legend: n images; g the result of the model's backward pass at an image, g* the exact gradient of the same weights; s
the loss of the probe, one number for each image. Computed in double precision on a copy of the model unless stated.
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

from signsym_core.auditing.differences import (
    BATCH,
    Differences,
    Loss,
    as_numpy,
    cosine_of,
    fits,
    length_of,
    one_draw,
    outputs_in_batches,
)
from signsym_core.auditing.gradientchecks import ALIGNED
from signsym_core.models.frozen import frozen
from signsym_core.models.outputs import outputs_of, refuse_non_finite
from signsym_core.retrieval.codes import signs
from signsym_core.rules.convert import converted, exact_gradient
from signsym_core.rules.points import readouts, summed
from signsym_core.tasks import TASKS, Task
from signsym_core.tasks.classification import log_odds
from signsym_core.validation import check_images, check_labels, check_module

#: Half the distance of the two points of a finite difference, L∞ in [0, 1] pixels.
STEP = 1e-3
#: Outputs that differ by no more than this count as equal, as in AutoAttack: rounding is not randomness. The second is
#: relative to the largest output, whose rounding is larger.
JITTER, ROUNDING = 1e-4, 1e-5
#: Additional forward passes of the same images that test whether outputs are random.
REPEATS = 4
Array = NDArray[np.float64]
Mask = NDArray[np.bool_]


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
    #: Whether the gradient that attacks follow is 0, NaN or infinite, in the model's precision.
    broken: Mask
    #: Whether forward passes of the same image differ by more than rounding, in the model's precision.
    unsteady: Mask
    #: η = <g*, sign g> / |g*|₁: the gain of a sign step along g relative to one along g*, to first order. None where
    #: the model is not converted, so that only its own backward pass is known.
    efficiency: Array | None
    #: cos(g, g*) and |g| / |g*|; None likewise.
    cosine: Array | None
    norm_ratio: Array | None
    #: Half the distance of the two points of the finite differences.
    step: float = STEP
    #: `direction` of g* instead of g, which tells whether the "exact" gradient is one: that of a spiking network is a
    #: surrogate's. None where g fits, and where the model is not converted.
    exact_direction: Array | None = None


def measure(
    model: nn.Module, images: Tensor, labels: Tensor, *, task: str | Task = "classification", step: float = STEP
) -> Probe:
    """Probe `model` at `images`, float [n, channels, height, width] in [0, 1].

    For a classifier s is the log-odds against the label(s), log((1 - p) / p): it rises with the cross-entropy, with a
    gradient along the same line, and does not saturate where the model is sure, so that a finite difference of it can
    be taken. For a task that retrieves s = -<sign f(x), f>: away from the image's own clean code. Images without any
    label, or with all of them, are left out.

    A model that rounds its input does not react to a small step, whose slope is then meaningless for a backward pass
    that is made for larger ones. So where ρ and the correlation are not those of a gradient at `step`, larger steps are
    tried, beginning with the model's quantum, and the first one that fits is used. Torch's random numbers are the same
    in all passes of a finite difference and its gradient, since a gradient is that of one draw.

    The model is not changed. A model that cannot be copied or cannot compute in double precision is probed in its own
    precision. Raises ValueError for invalid inputs (see `signsym_core.attack`) and for outputs that are not finite or
    do not fit the labels. Source of ρ: the textbook gradient check, applied to inputs; Athalye, Carlini, Wagner 2018.
    """
    judge = task if isinstance(task, Task) else TASKS.build(task)
    check_module(model)
    check_images(images)
    check_labels(labels, images)
    with frozen(model):
        outputs = outputs_in_batches(model, images)
        judge.check(outputs, labels)
        undecided = ~judge.decided(labels)
        images, labels, outputs = images[undecided], labels[undecided], outputs[undecided]
        if not len(images):
            raise ValueError("a probe needs at least one image with a label, and not with all of them, got none")
        repeats = [outputs_in_batches(model, images) for _ in range(REPEATS)]
        refuse_non_finite(torch.cat([outputs, *repeats]), what="images, each shown again")
        targets = signs(outputs) if judge.retrieves else labels
        loss: Loss = away_from_code if judge.retrieves else log_odds
        followed: Loss = loss if judge.retrieves else lambda o, t: judge.attack_loss(o, t).unsqueeze(0)
        attacked = _gradient(model, images, targets, followed)
    double, x = _in_double(model, images)
    with frozen(double):
        gradient = _gradient(double, x, targets, loss)
        repeat = cosine_of(gradient, _gradient(double, x, targets, loss))
        efficiency = cosine = ratio = exact_direction = None
        if converted(double):
            exact = _gradient(double, x, targets, loss, exact_gradient)
            efficiency = as_numpy((exact * gradient.sign()).sum(1) / exact.abs().sum(1))
            cosine, ratio = as_numpy(cosine_of(gradient, exact)), as_numpy(length_of(gradient) / length_of(exact))
        with one_draw(x.device):
            gradient = _gradient(double, x, targets, loss)
        differences = Differences(double, x, targets, loss, gradient)
        # Where the exact gradient is known to have another direction, no step size can change the result.
        other = cosine is not None and not np.nanmedian(cosine) >= ALIGNED
        usual = step
        step, rho, direction = differences.first_fitting(usual, only_this_step=other)
        if converted(double) and not fits(rho, direction):
            with one_draw(x.device):
                exact = _gradient(double, x, targets, loss, exact_gradient)
            along_exact = Differences(double, x, targets, loss, exact).first_fitting(usual, only_this_step=False)
            exact_direction = as_numpy(along_exact[2])
    finite = attacked.isfinite().all(dim=1)
    limit = JITTER + ROUNDING * outputs.abs().amax(dim=1)
    unsteady = torch.stack([(outputs - other).abs().amax(dim=1) for other in repeats]).amax(dim=0) > limit
    return Probe(
        rho=as_numpy(rho),
        direction=as_numpy(direction),
        repeat=as_numpy(repeat),
        broken=(~finite | (attacked == 0).all(dim=1)).cpu().numpy(),
        unsteady=unsteady.cpu().numpy(),
        efficiency=efficiency,
        cosine=cosine,
        norm_ratio=ratio,
        step=step,
        exact_direction=exact_direction,
    )


def away_from_code(outputs: Tensor, codes: Tensor) -> Tensor:
    """[n]: -<b, f(x)>, with b the code ±1 [n, bits]."""
    return -(outputs * codes).sum(dim=1)


def _in_double(model: nn.Module, images: Tensor) -> tuple[nn.Module, Tensor]:
    """A copy of the model in double precision, and the images; the model itself where it has none."""
    try:
        double, x = copy.deepcopy(model).double(), images.double()
        with frozen(double):
            outputs_in_batches(double, x[:1])
    except (RuntimeError, TypeError, ValueError):
        # It cannot be copied, or some of its layers always compute in single precision.
        return model, images
    return double, x


def _gradient(
    model: nn.Module,
    images: Tensor,
    targets: Tensor,
    loss: Loss,
    source: Callable[[nn.Module], AbstractContextManager[Any]] = contextlib.nullcontext,
) -> Tensor:
    """[n, pixels]: the gradient of each image's loss by the model's backward pass in the context `source`."""
    gradients = []
    for batch, target in zip(images.split(BATCH), targets.split(BATCH), strict=True):
        with torch.enable_grad(), source(model), readouts(model) as read:
            variable = batch.detach().clone().requires_grad_()
            total = loss(outputs_of(model, variable), target).sum()
            total = summed(total, lambda outputs: loss(outputs, target).sum(), read)  # noqa: B023
            # Outputs that do not depend on the image at all have no graph: their gradient is 0.
            if total.requires_grad:
                (gradient,) = torch.autograd.grad(total, variable, allow_unused=True, materialize_grads=True)
            else:
                gradient = torch.zeros_like(variable)
        gradients.append(gradient.flatten(1))
    return torch.cat(gradients)

"""The norm balls around images, and exact projections into them."""

from __future__ import annotations

import functools
from typing import Literal

import torch
from torch import Tensor

#: The norm that an epsilon is a radius of.
Norm = Literal["linf", "l2"]


def sizes(change: Tensor, norm: Norm = "linf") -> Tensor:
    """float64 [n]: each image's norm of `change` [n, ...]: its largest entry, or the root of the sum of squares."""
    flat = change.flatten(1)
    if norm == "linf":
        return flat.abs().amax(dim=1).double()
    lengths: Tensor = torch.linalg.vector_norm(flat.double(), dim=1)
    return lengths


def column(values: Tensor, like: Tensor) -> Tensor:
    """Numbers of images [n] as [n, 1, ...], which broadcast over `like` [n, ...]."""
    return values.view(-1, *[1] * (like.ndim - 1))


def projected(images: Tensor, moved: Tensor, epsilon: float, norm: Norm = "linf") -> Tensor:
    """`moved` brought to the ball around `images` and then to [0, 1], up to rounding: Π in the steps of attacks.

    In L∞ each pixel's change is clipped; in L2 a change that is too long is shortened, its direction kept.
    """
    change = moved - images
    if norm == "linf":
        return (images + change.clamp(-epsilon, epsilon)).clamp(0, 1)
    length: Tensor = torch.linalg.vector_norm(change, dim=tuple(range(1, change.ndim)), keepdim=True)
    moved = images + change * (epsilon / length.clamp(min=1e-30)).clamp(max=1)
    return moved.clamp(0, 1)


def steepest(gradient: Tensor, norm: Norm) -> Tensor:
    """The change of size 1 in the norm that raises a loss most to first order: sign(g), or g / |g| in L2.

    Pixels without a gradient stay, and so do images without one.
    """
    return gradient.sign() if norm == "linf" else direction(gradient)[0]


def direction(gradient: Tensor) -> tuple[Tensor, Tensor]:
    """The gradients of images [n, ...] at Euclidean length 1, or 0 where they are, and their lengths [n, 1, ...]."""
    inner = tuple(range(1, gradient.ndim))
    # Divided by the largest entry first: the squares of small and of large gradients leave float32.
    largest = gradient.abs().amax(dim=inner, keepdim=True)
    scaled = gradient / torch.where(largest > 0, largest, 1)
    length: Tensor = torch.linalg.vector_norm(scaled, dim=inner, keepdim=True)
    return scaled / torch.where(length > 0, length, 1), largest * length


def within_ball(images: Tensor, proposed: Tensor, epsilon: float, norm: Norm = "linf") -> Tensor:
    """`proposed` projected into the ball of radius `epsilon` around `images` and into [0, 1], exactly.

    In L∞ each pixel is clipped; in L2 a change that is too long is shortened, its direction kept. A sum rounded to
    float32 may lie outside the ball by one unit in the last place; such a change is set back by it.
    """
    # A pixel whose proposal is NaN stays unchanged.
    proposed = torch.where(proposed.isnan(), images, proposed)
    return _clipped(images, proposed, epsilon) if norm == "linf" else _shortened(images, proposed, epsilon)


def _clipped(images: Tensor, proposed: Tensor, epsilon: float) -> Tensor:
    bound = _bound(epsilon, images.dtype)
    clipped = (images + (proposed - images).clamp(-bound, bound)).clamp(0, 1)
    outside = (clipped.double() - images.double()).abs() > epsilon
    return torch.where(outside, torch.nextafter(clipped, images), clipped)


@functools.cache
def _bound(epsilon: float, dtype: torch.dtype) -> float:
    """The largest number of the type `dtype` that is at most `epsilon`."""
    radius = torch.tensor(epsilon, dtype=dtype)
    if float(radius) > epsilon:
        radius = torch.nextafter(radius, torch.zeros_like(radius))
    return float(radius)


def _shortened(images: Tensor, proposed: Tensor, epsilon: float) -> Tensor:
    # Clipping to [0, 1] first can only shorten the change, pixel by pixel.
    result = proposed.clamp(0, 1)
    change = result.double() - images.double()
    length = sizes(change, "l2")
    # Rounding to float32 moves each pixel by at most half a unit of a number below 1.
    slack = change[0].numel() ** 0.5 * torch.finfo(images.dtype).eps / 2
    factor = ((epsilon - slack) / length.clamp(min=1e-300)).clamp(min=0)
    shorter = (images.double() + change * column(factor, images)).to(images.dtype).clamp(0, 1)
    return torch.where(column(length <= epsilon, images), result, shorter)


def representable(images: Tensor, moved: Tensor, dtype: torch.dtype) -> Tensor:
    """`moved` in [0, 1] with each pixel rounded to a value that `dtype` represents, returned in the type of `moved`.

    No pixel moves further from `images`, which are exact in `dtype`: an image inside a ball stays inside.
    """
    if dtype == moved.dtype:
        return moved
    # The sum turns -0.0 into 0.0, so that the neighbour of a number in 16 bits is the next whole number.
    rounded = moved.to(dtype) + 0.0
    change = rounded.double() - images.double()
    further = change.abs() > (moved.double() - images.double()).abs()
    neighbour = (rounded.view(torch.int16) - change.sign().to(torch.int16)).view(dtype)
    return torch.where(further, neighbour, rounded).to(moved.dtype)

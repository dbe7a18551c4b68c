"""Validation of arguments. Each error names the argument, what was expected and what came."""

from __future__ import annotations

import numbers
import re
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from signsym_core.models.outputs import listed

if TYPE_CHECKING:
    from signsym_core.attacks.ball import Norm
    from signsym_core.datasets.batches import Prepared

_FRACTION = re.compile("([0-9]{1,15})/([0-9]{1,15})")


def check_module(model: object, name: str = "model") -> None:
    """A torch.nn.Module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} must be a torch.nn.Module, got {shown(model)}")


def whole_number(name: str, value: object, least: int) -> int:
    """`value` as an int: a whole number, at least `least`, of any integral type except bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {shown(value)}")
    return int(value)


def fraction(text: str) -> float | None:
    """The value of a text such as "8/255", of two whole numbers; None for any other text and for one over 0."""
    match = _FRACTION.fullmatch(text)
    return int(match[1]) / int(match[2]) if match and int(match[2]) else None


def radii(epsilons: object, norm: Norm = "linf") -> tuple[float, ...]:
    """Epsilons as floats, in their order: a list, tuple, array or tensor of numbers or of texts such as "8/255".

    At least one; in L∞ each in [0, 1], in L2 finite and from 0 on.
    """
    if isinstance(epsilons, (Tensor, np.ndarray)):
        epsilons = epsilons.tolist()
    if not isinstance(epsilons, Sequence) or isinstance(epsilons, (str, bytes)):
        raise ValueError(f"epsilons must be a list of radii, such as [0.1], got {shown(epsilons)}")
    if len(epsilons) == 0:
        raise ValueError("epsilons must hold at least one number")
    return tuple(_radius(epsilon, number, norm) for number, epsilon in enumerate(epsilons))


def _radius(epsilon: object, number: int, norm: Norm) -> float:
    value: object = fraction(epsilon) if isinstance(epsilon, str) else epsilon
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    largest, where = (1.0, "an L∞ radius in [0, 1]")
    if norm == "l2":
        largest, where = (sys.float_info.max, "an L2 radius, a finite number from 0 on")
    is_number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    if not is_number or not 0 <= value <= largest:  # type: ignore[operator]
        got = value if is_number else shown(epsilon)
        raise ValueError(f'epsilons[{number}] must be a number or a fraction such as "8/255", {where}, got {got}')
    # The sum turns -0.0 into 0.0.
    return float(value) + 0.0  # type: ignore[arg-type]


def check_images(images: object) -> None:
    """float [n, channels, height, width], n and all sides at least 1, finite and in [0, 1]."""
    expected = "images must be float[n, channels, height, width]"
    if not isinstance(images, Tensor):
        raise ValueError(f"{expected}, a torch tensor, got {shown(images)}")
    if images.ndim != 4 or not images.is_floating_point():
        raise ValueError(f"{expected}, got {images.dtype}{list(images.shape)}")
    if images.numel() == 0:
        raise ValueError(f"{expected} with at least one image and one pixel, got {list(images.shape)}")
    if not torch.isfinite(images).all():
        broken = (~torch.isfinite(images.flatten(1))).any(dim=1).nonzero().flatten().tolist()
        raise ValueError(f"images must be finite; NaN or infinity in {len(broken)} of them (numbers {listed(broken)})")
    low, high = float(images.min()), float(images.max())
    if low < 0 or high > 1:
        raise ValueError(f"images must be in [0, 1] (normalisation is part of the model), got {low:g} .. {high:g}")


def check_labels(labels: object, images: Tensor | Prepared | None = None, classes: int | None = None) -> None:
    """int64 [n], or 0/1 [n, classes] of any type; as many as `images`, on one device, and of so many `classes`."""
    expected = "labels must be int64[n] or 0/1 [n, classes]"
    if not isinstance(labels, Tensor):
        raise ValueError(f"{expected}, a tensor with an entry for each image, got {shown(labels)}")
    if labels.ndim not in (1, 2) or (labels.ndim == 1 and labels.dtype != torch.int64):
        raise ValueError(f"{expected}, got {labels.dtype}{list(labels.shape)}")
    if images is not None:
        if len(images) != len(labels):
            raise ValueError(f"images and labels must be equally many, got {len(images)} and {len(labels)}")
        if images.device != labels.device:
            raise ValueError(f"images and labels must be on one device, got {images.device} and {labels.device}")
    if len(labels) == 0:
        raise ValueError(f"{expected}, at least one, got {list(labels.shape)}")
    if classes is None:
        return
    if labels.ndim == 2 and (labels.shape[1] != classes or not ((labels == 0) | (labels == 1)).all()):
        raise ValueError(f"labels must be 0/1 [n, {classes}], got {labels.dtype}{list(labels.shape)}")
    if labels.ndim == 1 and not 0 <= int(labels.min()) <= int(labels.max()) < classes:
        raise ValueError(
            f"labels must be in 0 .. {classes - 1}, the classes, got {int(labels.min())} .. {int(labels.max())}"
        )


def binary_codes(codes: object, name: str) -> Tensor:
    """Codes as int8 of -1 and +1 [n, bits], from bool, or from numbers that are exactly -1 and +1.

    0 and 1 are refused, because they are ambiguous: a sign function maps both to +1.
    """
    expected = f"{name} must be [n, bits], n and bits at least 1, bool or exactly -1 and +1"
    if not isinstance(codes, Tensor):
        raise ValueError(f"{expected}, a torch tensor, got {shown(codes)}")
    if codes.ndim != 2 or codes.numel() == 0 or codes.is_complex():
        raise ValueError(f"{expected}, got {codes.dtype}{list(codes.shape)}")
    if codes.dtype == torch.bool:
        return codes.to(torch.int8) * 2 - 1
    # In an unsigned type -1 would be its largest number.
    binary = (codes == 1) | (codes == -1) if codes.dtype.is_signed else codes == 1
    strange = codes[~binary]
    if len(strange):
        advice = "; of real outputs take the signs first, of bits codes.bool()"
        raise ValueError(f"{expected}, got {codes.dtype} with {strange[0].item()} in it{advice}")
    return codes.to(torch.int8)


def check_code_labels(labels: object, count: int, device: torch.device, name: str) -> None:
    """int64 [count] from 0 on, or 0/1 [count, classes], on the device of the codes."""
    expected = f"{name} must be int64[{count}] from 0 on, or 0/1 [{count}, classes]"
    if not isinstance(labels, Tensor):
        raise ValueError(f"{expected}, a torch tensor, got {shown(labels)}")
    strange = f"{expected}, got {labels.dtype}{list(labels.shape)}"
    if labels.ndim not in (1, 2) or len(labels) != count or labels.is_complex():
        raise ValueError(strange)
    if labels.device != device:
        raise ValueError(f"{name} must be on the device of the codes, {device}, got {labels.device}")
    if labels.ndim == 1 and labels.dtype != torch.int64:
        raise ValueError(strange)
    fitting = labels >= 0 if labels.ndim == 1 else (labels == 0) | (labels == 1)
    if not fitting.all():
        raise ValueError(f"{strange} with {labels[~fitting][0].item()} in it")


def shown(value: object) -> str:
    """A value for an error message: what it is and its type, or the type and shape of an array."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim:
        return f"{type(value).__name__} {value.dtype}{list(value.shape)}"
    return f"{value!r:.60} ({type(value).__name__})"

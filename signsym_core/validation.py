"""Validation of arguments. Each error names the argument, what was expected and what came."""

from __future__ import annotations

import numbers
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn

from signsym_core.models.outputs import listed

if TYPE_CHECKING:
    from signsym_core.datasets.batches import Prepared


def check_module(model: object, name: str = "model") -> None:
    """A torch.nn.Module."""
    if not isinstance(model, nn.Module):
        raise ValueError(f"{name} must be a torch.nn.Module, got {shown(model)}")


def whole_number(name: str, value: object, least: int) -> int:
    """`value` as an int: a whole number, at least `least`, of any integral type except bool."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral) or value < least:
        raise ValueError(f"{name} must be a whole number, at least {least}, got {shown(value)}")
    return int(value)


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


def shown(value: object) -> str:
    """A value for an error message: what it is and its type, or the type and shape of an array."""
    if isinstance(value, (Tensor, np.ndarray)) and value.ndim:
        return f"{type(value).__name__} {value.dtype}{list(value.shape)}"
    return f"{value!r:.60} ({type(value).__name__})"

"""Corruptions that are computed from grey images when they are loaded, always the same for the same image.

Legend: images uint8 [n, 1, height, width]; x one of them in [0, 1]; c the constant of a severity, those of ImageNet-C.
Source: Hendrycks and Dietterich 2019 (1903.12261) and their code, make_imagenet_c.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import torch
from torch import Generator, Tensor

from signsym_core import seeds


def gaussian_noise(x: Tensor, c: float, generator: Generator) -> Tensor:
    """x + c z, with z standard normal."""
    return x + c * torch.randn(x.shape, generator=generator)


def shot_noise(x: Tensor, c: float, generator: Generator) -> Tensor:
    """k / c, with k of the Poisson distribution of mean c x: c photons for a white pixel."""
    return torch.poisson(c * x, generator=generator) / c


def impulse_noise(x: Tensor, c: float, generator: Generator) -> Tensor:
    """With probability c a pixel becomes black or white, each half of the times."""
    hit, white = torch.rand((2, *x.shape), generator=generator).unbind()
    return torch.where(hit < c, (white < 0.5).float(), x)


def brightness(x: Tensor, c: float, generator: Generator) -> Tensor:
    """x + c: the value of a grey pixel's colour."""
    return x + c


def contrast(x: Tensor, c: float, generator: Generator) -> Tensor:
    """m + c (x - m), with m the mean of the image."""
    return x.mean() + c * (x - x.mean())


#: For each kind what computes it, and its constants by severity.
NOISES: Mapping[str, tuple[Callable[[Tensor, float, Generator], Tensor], tuple[float, ...]]] = MappingProxyType(
    {
        "gaussian_noise": (gaussian_noise, (0.08, 0.12, 0.18, 0.26, 0.38)),
        "shot_noise": (shot_noise, (60, 25, 12, 5, 3)),
        "impulse_noise": (impulse_noise, (0.03, 0.06, 0.09, 0.17, 0.27)),
        "brightness": (brightness, (0.1, 0.2, 0.3, 0.4, 0.5)),
        "contrast": (contrast, (0.4, 0.3, 0.2, 0.1, 0.05)),
    }
)


def noisy(images: Tensor, numbers: Tensor, kind: str, severity: int) -> Tensor:
    """Images under the corruption `kind`, clipped to [0, 1] and rounded down to 8 bits as the source does.

    `numbers` are their numbers in the data set: each image has a generator of its own, so that what becomes of it does
    not depend on which others are there.
    """
    corrupt, constants = NOISES[kind]
    changed = torch.empty_like(images)
    for row, number in enumerate(numbers.tolist()):
        generator = seeds.generator(0, "corruption", kind, severity, number)
        x = corrupt(images[row].float() / 255, constants[severity - 1], generator)
        changed[row] = (x.clamp(0, 1) * 255).to(torch.uint8)
    return changed

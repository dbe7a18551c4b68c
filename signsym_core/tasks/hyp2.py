"""The HyP² loss: a proxy for each class on the hypersphere, and images without a common label pushed apart.

Legend: n images, K bits, C classes; x outputs [n, K], p proxies [C, K], Y labels 0/1 [n, C].
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signsym_core import seeds
from signsym_core.tasks.base import Objective

Variant = Literal["original", "h2q"]

#: d(n, k) for k = 1 .. 12: the largest known minimum distance of a binary linear code of n bits with 2^k words.
DISTANCES = {
    12: (12, 8, 6, 6, 4, 4, 4, 3, 2, 2, 2, 1),
    16: (16, 10, 8, 8, 8, 6, 6, 5, 4, 4, 4, 2),
    24: (24, 16, 13, 12, 12, 10, 10, 8, 8, 8, 8, 8),
    32: (32, 21, 18, 16, 16, 16, 14, 13, 12, 12, 12, 10),
    36: (36, 24, 20, 18, 17, 16, 16, 16, 14, 14, 12, 12),
    48: (48, 32, 27, 24, 24, 24, 22, 22, 20, 20, 18, 18),
    64: (64, 42, 36, 33, 32, 32, 32, 29, 28, 28, 26, 26),
}


def threshold(bits: int, classes: int) -> float:
    """ζ = 1 - 2 d(K, k) / K with k = ⌈log₂ C⌉: the cosine that C code words of K bits need not exceed.

    Two words of -1 and +1 at Hamming distance d have the cosine 1 - 2 d / K. Raises ValueError where the table has no
    entry: for numbers of bits other than 12, 16, 24, 32, 36, 48 and 64, and for more than 4,096 classes.
    """
    row = DISTANCES.get(bits)
    words = max(1, math.ceil(math.log2(classes)))
    if row is None or words > len(row):
        known = ", ".join(map(str, DISTANCES))
        raise ValueError(
            f"no threshold is tabulated for {bits} bits and {classes} classes; it is for {known} bits and up to 4096 "
            f"classes. Set the task's parameter 'zeta', the cosine above which two classes are pushed apart"
        )
    return 1 - 2 * row[words - 1] / bits


def hyp2_loss(
    outputs: Tensor, labels: Tensor, proxies: Tensor, *, zeta: float, variant: Variant, beta: float = 0.5
) -> Tensor:
    """L = Σ_{Y=1} (1 - cos(x, p)) / #{Y=1} + Σ_{Y=0} max(0, cos(x, p) - ζ) / #{Y=0} + β · pairs.

    `pairs` is the mean of max(0, cos(xᵢ, xⱼ) - ζ) over ordered pairs of images without a common label: in `original`
    among the images with more than one label, so that it is 0 where each image has one; in `h2q` among all images,
    and there the proxies go through tanh. A mean over nothing is 0. Labels are int64 [n] or 0/1 [n, C].

    Source: Xu et al. 2022, HyP² loss, doi 10.1145/3503161.3548032, and its public code; `h2q`: Schwengber et al.,
    whose code writes -cos for 1 - cos, which has the same gradient.
    """
    several = labels if labels.ndim == 2 else F.one_hot(labels, len(proxies))
    target = several.to(outputs.dtype)
    places = (torch.tanh(proxies) if variant == "h2q" else proxies).to(outputs.dtype)
    directions = F.normalize(outputs, dim=1)
    cosines = directions @ F.normalize(places, dim=1).T
    attraction = _mean(1 - cosines, target)
    repulsion = _mean(F.relu(cosines - zeta), 1 - target)
    return attraction + repulsion + beta * _pairs(directions, target, zeta, variant)


def _pairs(directions: Tensor, target: Tensor, zeta: float, variant: Variant) -> Tensor:
    strangers = ((target @ target.T) == 0).to(directions.dtype)
    if variant == "original":
        among = (target.sum(dim=1) > 1).to(directions.dtype)
        strangers = strangers * among.unsqueeze(0) * among.unsqueeze(1)
    return _mean(F.relu(directions @ directions.T - zeta), strangers)


def _mean(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of `values` where `weights` is 1; 0 where no weight is, without synchronising with the device."""
    return (values * weights).sum() / weights.sum().clamp(min=1)


class HyP2(Objective):
    """`hyp2_loss` with its proxies, drawn from N(0, 2 / C): Kaiming's normal initialisation with fan_out."""

    def __init__(
        self, classes: int, bits: int, *, zeta: float, variant: Variant, beta: float, tanh: bool, lr: float, seed: int
    ) -> None:
        super().__init__()
        drawn = torch.empty(classes, bits)
        nn.init.kaiming_normal_(drawn, mode="fan_out", generator=seeds.generator(seed, "proxies"))
        self.proxies = nn.Parameter(drawn)
        self.zeta, self.variant, self.beta, self.tanh, self.lr = zeta, variant, beta, tanh, lr

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        if self.tanh:
            outputs = torch.tanh(outputs)
        return hyp2_loss(outputs, labels, self.proxies, zeta=self.zeta, variant=self.variant, beta=self.beta)

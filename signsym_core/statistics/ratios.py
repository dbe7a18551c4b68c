"""Ratios of two quantities that both have one value for each seed."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import stdtrit


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Ratio:
    """A mean of ratios over seeds, with its 95 % interval."""

    value: float
    #: -infinity and infinity for one seed, which says nothing about others.
    lo: float
    hi: float
    seeds: int


def ratio(above: Sequence[ArrayLike], below: Sequence[ArrayLike]) -> Ratio | None:
    """mean over seeds and kinds of a / b, of values a and b [seeds] for each kind, paired by kind and seed.

    The interval is Student's over the S values of the seeds, each the mean r of its kinds: r̄ ± t(S - 1) s / √S. It is
    about other seeds, on the same images. None where some b is not above 0: the ratio has no meaning there. Raises
    ValueError for values of different shapes.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (above, below))
    if a.shape != b.shape or a.ndim != 2 or 0 in a.shape:
        raise ValueError(f"expected values [kinds, seeds] of one shape, got {list(a.shape)} and {list(b.shape)}")
    if (b <= 0).any():
        return None
    by_seed = (a / b).mean(axis=0)
    seeds, mean = len(by_seed), float(by_seed.mean())
    if seeds == 1:
        return Ratio(value=mean, lo=-math.inf, hi=math.inf, seeds=1)
    half = float(stdtrit(seeds - 1, 0.975) * by_seed.std(ddof=1) / math.sqrt(seeds))
    return Ratio(value=mean, lo=mean - half, hi=mean + half, seeds=seeds)

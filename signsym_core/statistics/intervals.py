"""Intervals for scores that are means over images, from one seed or from several.

Legend: outcomes [seeds, images], each in [0, 1] (robust or not, or an average precision); S seeds, N images.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri

from signsym_core.statistics.spread import Moments, half_width


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its confidence interval, and what it rests on."""

    value: float
    lo: float
    hi: float
    #: Images, and seeds that all of them were measured with.
    n: int
    seeds: int
    #: "wilson" (images only), "two-way" (seeds and images), "paired" (differences over images only), or "student"
    #: (numbers of any size over images only).
    method: str
    #: p-value: probability of a gap at least this far from 0 where the true gap is 0; 1 where it was not computed.
    p: float = 1.0


def wilson(successes: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Wilson's score interval for a share of `successes` in `n` independent trials.

    With p = k / n and z the normal quantile: (p + z²/2n ± z √(p (1 - p)/n + z²/4n²)) / (1 + z²/n). Source: Wilson
    1927, J. Am. Stat. Assoc. 22. Raises ValueError for n < 1 or successes outside [0, n].
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"expected 0 <= successes <= n and n >= 1, got {successes} of {n}")
    z = _normal(confidence)
    p = successes / n
    middle = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n)) / (1 + z * z / n)
    # At 0 and n the bounds are exactly 0 and 1, without rounding errors.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def interval(outcomes: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of `outcomes` with its interval: Wilson over images for one seed, two-way for several.

    One seed's interval says nothing about other seeds. Pooling seeds into one Wilson interval would be wrong, since
    they share their images. Raises ValueError for outcomes that are empty, not finite or outside [0, 1].
    """
    return intervals(_checked(outcomes)[None], confidence)[0]


def gap(first: ArrayLike, second: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of first - second with its interval, paired by seed and image.

    The formula of `interval` on the differences: two-way for several seeds; for one seed Student's interval over
    images. Where every difference is the same d, no spread can be estimated: then at least the share q = (α/2)^(1/N)
    of all images has it (Clopper, Pearson 1934, for N of N), and the others at worst the difference ∓1, so that the
    interval ends at ±(q |d| - (1 - q)). So do identical outcomes, of d = 0: ±(1 - q). Raises ValueError where the two
    do not have one shape.
    """
    a, b = _checked(first), _checked(second)
    if a.shape != b.shape:
        raise ValueError(f"a paired gap expects outcomes of one shape, got {list(a.shape)} and {list(b.shape)}")
    return gaps(a[None], b[None], confidence)[0]


def intervals(x: NDArray[Any], confidence: float = 0.95) -> list[Interval]:
    """`interval` of each of many outcomes of one shape at once, x [points, seeds, images], each in [0, 1]."""
    points, seeds, images = x.shape
    moments = Moments.of(x)
    value = moments.total / (seeds * images)
    half, _ = half_width(moments, confidence) if seeds > 1 else (np.zeros(points), value)
    results = []
    for mean, width in zip(value.tolist(), half.tolist(), strict=True):
        if seeds == 1 or mean in (0.0, 1.0):
            lo, hi = wilson(min(mean * images, images), images, confidence)
            method = "wilson"
        else:
            lo, hi, method = max(0.0, mean - width), min(1.0, mean + width), "two-way"
        results.append(Interval(value=mean, lo=lo, hi=hi, n=images, seeds=seeds, method=method))
    return results


def mean_of(
    x: NDArray[np.float64], confidence: float = 0.95, *, least: float = -math.inf, most: float = math.inf
) -> Interval:
    """The mean of numbers x [seeds, images] of any size: the two-way interval, for one seed Student's over images.

    The interval ends at `least` and `most`, between which the numbers lie whatever is measured; that of a single
    number, which says nothing of others, at infinity. Raises ValueError for numbers that are not finite, and for none.
    """
    if x.ndim != 2 or not x.size or not np.isfinite(x).all():
        raise ValueError(f"expected finite numbers [seeds, images], at least one of each, got shape {list(x.shape)}")
    seeds, images = x.shape
    half, _ = half_width(Moments.of(x[None]), confidence)
    mean, width = float(x.mean()), float(half[0])
    method = "student" if seeds == 1 else "two-way"
    lo, hi = mean - width, mean + width
    if math.isfinite(width):
        lo, hi = max(least, lo), min(most, hi)
    return Interval(value=mean, lo=lo, hi=hi, n=images, seeds=seeds, method=method)


def gaps(first: NDArray[Any], second: NDArray[Any], confidence: float = 0.95) -> list[Interval]:
    """`gap` of each of many pairs of outcomes of one shape at once, [points, seeds, images] each."""
    # Differences of bytes would wrap around.
    d = first.astype(np.int8) - second.astype(np.int8) if first.dtype.kind in "bu" else first - second
    _, seeds, images = d.shape
    moments = Moments.of(d)
    value = moments.total / (seeds * images)
    half, p = half_width(moments, confidence)
    # Differences of average precisions are rounded.
    constant = half < 1e-7
    far = 1 + np.abs(value[constant])
    half[constant] = far * (1 - ((1 - confidence) / 2) ** (1 / images))
    p[constant] = np.minimum(1.0, 2 * far**-images)
    results = []
    for mean, width, chance, equal in zip(value.tolist(), half.tolist(), p.tolist(), constant.tolist(), strict=True):
        method = "paired" if seeds == 1 or equal else "two-way"
        lo, hi = max(-1.0, mean - width), min(1.0, mean + width)
        results.append(Interval(value=mean, lo=lo, hi=hi, n=images, seeds=seeds, method=method, p=chance))
    return results


def _checked(outcomes: ArrayLike) -> NDArray[np.float64]:
    x = np.asarray(outcomes, dtype=np.float64)
    if x.ndim == 1:
        x = x[None, :]
    if x.ndim != 2 or 0 in x.shape:
        raise ValueError(f"expected outcomes [seeds, images] with at least one of each, got shape {list(x.shape)}")
    if not np.isfinite(x).all():
        raise ValueError(f"expected finite outcomes, got {int((~np.isfinite(x)).sum())} that are NaN or infinite")
    if x.min() < 0 or x.max() > 1:
        raise ValueError(f"expected outcomes in [0, 1], got {x.min():g} .. {x.max():g}")
    return x


def _normal(confidence: float) -> float:
    if not 0 < confidence < 1:
        raise ValueError(f"expected a confidence in (0, 1), got {confidence}")
    return float(ndtri(0.5 + confidence / 2))

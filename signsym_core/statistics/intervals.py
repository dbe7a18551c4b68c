"""Intervals for scores that are means over images, from one seed or from several.

Legend: outcomes [seeds, images], each in [0, 1] (robust or not, or an average precision); S seeds, N images.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtr, stdtrit


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Interval:
    """A mean with its confidence interval, and what it rests on."""

    value: float
    lo: float
    hi: float
    #: Images, and seeds that all of them were measured with.
    n: int
    seeds: int
    #: "wilson" (images only), "two-way" (seeds and images), or "paired" (differences over images only).
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
    images. Identical outcomes give [0, 0]. Raises ValueError where the two do not have one shape.
    """
    a, b = _checked(first), _checked(second)
    if a.shape != b.shape:
        raise ValueError(f"a paired gap expects outcomes of one shape, got {list(a.shape)} and {list(b.shape)}")
    return gaps(a[None], b[None], confidence)[0]


def intervals(x: NDArray[Any], confidence: float = 0.95) -> list[Interval]:
    """`interval` of each of many outcomes of one shape at once, x [points, seeds, images], each in [0, 1]."""
    points, seeds, images = x.shape
    moments = _Moments.of(x)
    value = moments.total / (seeds * images)
    half, _ = _half_width(moments, confidence) if seeds > 1 else (np.zeros(points), value)
    results = []
    for mean, width in zip(value.tolist(), half.tolist(), strict=True):
        if seeds == 1 or mean in (0.0, 1.0):
            lo, hi = wilson(min(mean * images, images), images, confidence)
            method = "wilson"
        else:
            lo, hi, method = max(0.0, mean - width), min(1.0, mean + width), "two-way"
        results.append(Interval(value=mean, lo=lo, hi=hi, n=images, seeds=seeds, method=method))
    return results


def gaps(first: NDArray[Any], second: NDArray[Any], confidence: float = 0.95) -> list[Interval]:
    """`gap` of each of many pairs of outcomes of one shape at once, [points, seeds, images] each."""
    # Differences of bytes would wrap around.
    d = first.astype(np.int8) - second.astype(np.int8) if first.dtype.kind in "bu" else first - second
    _, seeds, images = d.shape
    moments = _Moments.of(d)
    value = moments.total / (seeds * images)
    half, p = _half_width(moments, confidence)
    same = moments.squares == 0
    half[same], p[same] = 0.0, 1.0
    results = []
    for mean, width, chance, equal in zip(value.tolist(), half.tolist(), p.tolist(), same.tolist(), strict=True):
        method = "paired" if seeds == 1 or equal else "two-way"
        lo, hi = max(-1.0, mean - width), min(1.0, mean + width)
        results.append(Interval(value=mean, lo=lo, hi=hi, n=images, seeds=seeds, method=method, p=chance))
    return results


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Moments:
    """Sums of x [points, S, N] that every interval is made from, each [points]; exact where x holds whole numbers."""

    seeds: int
    images: int
    total: NDArray[np.float64]
    #: Σ x², Σ over seeds of (Σ over images)², Σ over images of (Σ over seeds)².
    squares: NDArray[np.float64]
    by_seed: NDArray[np.float64]
    by_image: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[Any]) -> _Moments:
        _, seeds, images = x.shape
        integral = x.dtype.kind in "bui"
        if integral:
            # 0, 1 and, of differences, -1.
            squares = np.count_nonzero(x, axis=(1, 2)).astype(np.float64)
            of_seeds = x.sum(axis=2, dtype=np.int32).astype(np.float64)
            of_images = x.sum(axis=1, dtype=np.int16).astype(np.float64)
        else:
            x = x.astype(np.float64, copy=False)
            squares = (x * x).sum(axis=(1, 2))
            of_seeds, of_images = x.sum(axis=2), x.sum(axis=1)
        return cls(
            seeds=seeds,
            images=images,
            total=of_seeds.sum(axis=1),
            squares=squares,
            by_seed=(of_seeds * of_seeds).sum(axis=1),
            by_image=(of_images * of_images).sum(axis=1),
        )


def _half_width(m: _Moments, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Half the width of each mean's interval, and the probability of a mean at least so far from 0 by chance.

    Several seeds: with mean squares of seeds, images and the residual, var = (MS_seed + MS_image - MS_resid) / (S N)
    estimates the variance of the mean over new seeds and new images, in the two-way random-effects model. Where chance
    makes MS_seed or MS_image smaller than MS_resid, that stands for it. The part of the seeds rests on S - 1 degrees of
    freedom, that of the images on N - 1, and the squared quantile is the mean of Student's squared quantiles weighted
    by the parts (Cochran 1964, Biometrics 20), which unlike Satterthwaite's degrees of freedom does not promise too
    much where a large part rests on few. A MS_seed that was replaced has 2 (S - 1): seeds that happen to agree say
    little of seeds that do not. Intervals of two and three seeds covered 86 to 92 % for want of both; docs/numbers.md
    has the table. One seed: Student's over images; one image: Student's over seeds. Source of the model: Searle,
    Casella, McCulloch 1992, Variance Components, chapters 2 and 5.
    """
    s, n = m.seeds, m.images
    level = 0.5 + confidence / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        correction = m.total**2 / (s * n)
        around = np.maximum(m.squares - correction, 0.0)
        if s == 1 or n == 1:
            size = s * n
            freedom = np.full(len(around), float(size - 1))
            # A single outcome gives no estimate of the spread.
            error = np.sqrt(around / (size - 1) / size) if size > 1 else np.where(m.squares > 0, np.inf, 0.0)
            quantile = stdtrit(freedom, level) if size > 1 else np.ones(len(around))
        else:
            of_seeds = np.maximum(m.by_seed / n - correction, 0.0)
            of_images = np.maximum(m.by_image / s - correction, 0.0)
            rest = np.maximum(around - of_seeds - of_images, 0.0) / ((s - 1.0) * (n - 1.0))
            ms_seed, ms_image = of_seeds / (s - 1.0), of_images / (n - 1.0)
            # The tolerance keeps rounding from deciding between two equal values.
            no_seed_effect = ms_seed <= rest * (1 + 1e-9)
            from_seeds, from_images = np.where(no_seed_effect, rest, ms_seed), np.maximum(ms_image - rest, 0.0)
            by_seeds, by_images = _student(np.where(no_seed_effect, 2.0, 1.0) * (s - 1)), _student(n - 1.0)
            estimate = from_seeds + from_images
            squared = (by_seeds**2 * from_seeds + by_images**2 * from_images) / estimate
            # The degrees of freedom that have this quantile, so that an interval and its probability agree.
            freedom = np.where(estimate > 0, _freedom(np.sqrt(squared), most=max(n - 1, 2 * (s - 1))), 1.0)
            error = np.sqrt(estimate / (s * n))
            quantile = stdtrit(freedom, level)
        # No spread at all: the mean is what it is.
        half = np.where(error > 0, quantile * error, 0.0)
        away = np.abs(m.total / (s * n))
        p = np.where(error > 0, 2 * stdtr(freedom, -away / error), np.where(away > 0, 0.0, 1.0))
        p[np.isinf(error)] = 1.0
    return half, p


def _student(freedom: NDArray[np.float64] | float) -> NDArray[np.float64]:
    """The quantile of Student's distribution at 97.5 %."""
    quantile: NDArray[np.float64] = stdtrit(freedom, 0.975)
    return quantile


def _freedom(quantile: NDArray[np.float64], most: int) -> NDArray[np.float64]:
    """The degrees of freedom, 1 .. `most`, whose Student distribution has these quantiles at 97.5 %."""
    quantiles, inverse = _quantiles(most)
    freedom: NDArray[np.float64] = 1 / np.interp(quantile, quantiles, inverse)
    return freedom


@functools.lru_cache(maxsize=64)
def _quantiles(most: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """A table: ascending quantiles by 1 / df, on which they depend nearly in a straight line."""
    inverse = np.linspace(1 / most, 1.0, 4096)
    return _student(1 / inverse), inverse


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


def rank_correlation(first: ArrayLike, second: ArrayLike) -> float:
    """Spearman's rank correlation of two lists of numbers: Pearson's of their ranks, equal numbers sharing a mean rank.

    NaN for fewer than two pairs and where all numbers of a list are equal. Raises ValueError for lists of different
    lengths. Source: Spearman 1904, Am. J. Psychol. 15.
    """
    a, b = (np.asarray(values, dtype=np.float64) for values in (first, second))
    if a.shape != b.shape or a.ndim != 1:
        raise ValueError(f"expected two lists of the same length, got shapes {a.shape} and {b.shape}")
    x, y = (ranks - ranks.mean() for ranks in (_ranks(a), _ranks(b))) if len(a) > 1 else (np.zeros(1), np.zeros(1))
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale else math.nan


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rank of each value from 1, equal values sharing their mean."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: NDArray[np.float64] = ((ends - counts + 1 + ends) / 2)[place]
    return ranks

"""How far a mean over seeds and images is from the truth by chance, for many means of one shape at once.

Legend: x [points, seeds, images]; S seeds, N images.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit


@dataclasses.dataclass(frozen=True, kw_only=True)
class Moments:
    """Sums of x [points, S, N] that every interval is made from, each [points]; exact where x holds whole numbers."""

    seeds: int
    images: int
    total: NDArray[np.float64]
    #: Σ x², Σ over seeds of (Σ over images)², Σ over images of (Σ over seeds)².
    squares: NDArray[np.float64]
    by_seed: NDArray[np.float64]
    by_image: NDArray[np.float64]

    @classmethod
    def of(cls, x: NDArray[Any]) -> Moments:
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


def half_width(m: Moments, confidence: float) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
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

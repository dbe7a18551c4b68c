"""Intervals for scores that are means over images, from one seed or from several.

Legend: outcomes [seeds, images], each in [0, 1] (robust or not, or an average precision); S seeds, N images.
"""

from __future__ import annotations

import dataclasses
import math

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtri, stdtrit


@dataclasses.dataclass(frozen=True, kw_only=True)
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

    @property
    def excludes_zero(self) -> bool:
        """Whether 0 lies outside the interval."""
        return self.lo > 0 or self.hi < 0


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
    # At 0 and n the bounds are 0 and 1 exactly, whatever rounding says.
    return (0.0 if successes == 0 else middle - half), (1.0 if successes == n else middle + half)


def interval(outcomes: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of `outcomes` with its interval: Wilson over images for one seed, two-way for several.

    One seed's interval says nothing about other seeds. Pooling seeds into one Wilson interval would be wrong, since
    they share their images. Raises ValueError for outcomes that are empty, not finite or outside [0, 1].
    """
    x = _checked(outcomes)
    seeds, images = x.shape
    value = float(x.mean())
    if seeds == 1 or value in (0.0, 1.0):
        lo, hi = wilson(min(value * images, images), images, confidence)
        return Interval(value=value, lo=lo, hi=hi, n=images, seeds=seeds, method="wilson")
    half = _two_way_half_width(x, confidence)
    return Interval(
        value=value, lo=max(0.0, value - half), hi=min(1.0, value + half), n=images, seeds=seeds, method="two-way"
    )


def gap(ours: ArrayLike, theirs: ArrayLike, confidence: float = 0.95) -> Interval:
    """The mean of ours - theirs with its interval, paired by seed and image.

    The formula of `interval` on the differences: two-way for several seeds; for one seed Student's interval over
    images. Identical outcomes give [0, 0]. Raises ValueError where the two do not have one shape.
    """
    a, b = _checked(ours), _checked(theirs)
    if a.shape != b.shape:
        raise ValueError(f"a paired gap expects outcomes of one shape, got {list(a.shape)} and {list(b.shape)}")
    d = a - b
    seeds, images = d.shape
    value = float(d.mean())
    if seeds == 1 or not d.any():
        spread = float(d.std(ddof=1)) if images > 1 else (1.0 if d.any() else 0.0)
        half = _student(images - 1, confidence) * spread / math.sqrt(images) if spread else 0.0
        method = "paired"
    else:
        half, method = _two_way_half_width(d, confidence), "two-way"
    lo, hi = max(-1.0, value - half), min(1.0, value + half)
    return Interval(value=value, lo=lo, hi=hi, n=images, seeds=seeds, method=method)


def _two_way_half_width(x: NDArray[np.float64], confidence: float) -> float:
    """Half the width of the two-way random-effects interval of the mean of x [S, N], S >= 2.

    With the mean squares of seeds, images and the residual, var = (MS_seed + MS_image - MS_resid) / (S N) estimates
    the variance of the mean over new seeds and new images; its degrees of freedom are Satterthwaite's. An estimate
    that is not above the residual's own share, which chance can make even negative, is replaced by it: the interval
    is then that of independent outcomes, and never narrower. Source: Searle, Casella, McCulloch 1992, Variance
    Components, chapters 2 and 5.
    """
    seeds, images = x.shape
    if images == 1:
        # No spread over images to be seen: Student over the seeds is what is left.
        return _student(seeds - 1, confidence) * float(x.std(ddof=1)) / math.sqrt(seeds)
    by_seed, by_image, mean = x.mean(axis=1, keepdims=True), x.mean(axis=0, keepdims=True), x.mean()
    df = np.array([seeds - 1, images - 1, (seeds - 1) * (images - 1)], dtype=float)
    squares = np.array(
        [
            images * ((by_seed - mean) ** 2).sum(),
            seeds * ((by_image - mean) ** 2).sum(),
            ((x - by_seed - by_image + mean) ** 2).sum(),
        ]
    )
    ms_seed, ms_image, ms_residual = squares / df
    total = ms_seed + ms_image - ms_residual
    if total <= ms_residual:
        return _student(df[2], confidence) * math.sqrt(ms_residual / (seeds * images))
    freedom = total**2 / (np.array([ms_seed, ms_image, ms_residual]) ** 2 / df).sum()
    return _student(freedom, confidence) * math.sqrt(total / (seeds * images))


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


def _student(freedom: float, confidence: float) -> float:
    return float(stdtrit(freedom, 0.5 + confidence / 2))

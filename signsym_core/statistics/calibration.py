"""How far the confidence of a classifier is from how often it is right.

Legend: n images; c [n] the probability of the class that an image is given, r [n] whether that class is right; B_m the
images with c in ((m - 1) / M, m / M].
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

#: The number M of bins, of equal width.
BINS = 15


def expected_calibration_error(confidence: ArrayLike, right: ArrayLike, bins: int = BINS) -> float:
    """ECE = Σ_m |B_m| / n · |mean of r over B_m - mean of c over B_m|, 0 .. 1.

    Source: Guo et al. 2017, On calibration of modern neural networks, 1706.04599, equations 3 and 5. Raises ValueError
    for lists of different lengths, without an image, and for a confidence outside [0, 1].
    """
    c, r = _checked(confidence), np.asarray(right, dtype=np.float64)
    if c.shape != r.shape:
        raise ValueError(f"expected as many confidences as outcomes, got shapes {list(c.shape)} and {list(r.shape)}")
    # Bins that no image is in count for nothing: their sums are 0.
    return float(np.abs(np.bincount(_bin(c, bins), r - c)).sum() / len(c))


def error_by_chance(confidence: ArrayLike, bins: int = BINS) -> float:
    """The ECE that a model with these confidences would have on average if each were right: Σ_m √(2 v_m / π) / n.

    v_m = Σ over B_m of c (1 - c) is the variance of the number of images of B_m that are right; a normal number of
    mean 0 has the absolute value √(2 v / π) on average. An ECE near it says nothing against a model.
    """
    c = _checked(confidence)
    return float(np.sqrt(2 / math.pi * np.bincount(_bin(c, bins), c * (1 - c))).sum() / len(c))


def _bin(confidence: NDArray[np.float64], bins: int) -> NDArray[np.int64]:
    """The number of each image's bin, from 0; 0 is in the first one."""
    number: NDArray[np.int64] = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    return number


def _checked(confidence: ArrayLike) -> NDArray[np.float64]:
    c = np.asarray(confidence, dtype=np.float64)
    if c.ndim != 1 or not len(c) or not ((c >= 0) & (c <= 1)).all():
        raise ValueError(f"expected a list of probabilities in [0, 1], at least one, got shape {list(c.shape)}")
    return c

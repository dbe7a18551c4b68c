"""Rank correlation of two lists of numbers."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


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

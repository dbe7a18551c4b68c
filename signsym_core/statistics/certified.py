"""How far randomised smoothing certifies an image of which so many draws agree.

Legend: σ the size of the noise, α the chance of an error, Φ the normal distribution function.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.special import betaincinv, ndtri


def radii(counts: NDArray[np.int64], samples: int, sigma: float, alpha: float) -> NDArray[np.float64]:
    """float64 [n]: R = σ Φ⁻¹(p), 0 where p <= 1/2, of images whose class had so many of `samples` draws.

    p is the lower limit of Clopper and Pearson at 1 - α. Source: Cohen, Rosenfeld, Kolter 2019, arXiv 1902.02918.
    """
    # betaincinv has no value for a count of 0, whose limit is 0.
    least = np.where(counts > 0, betaincinv(np.maximum(counts, 1), samples - counts + 1, alpha), 0.0)
    return sigma * np.asarray(ndtri(np.maximum(least, 0.5)), dtype=np.float64)


def farthest(samples: int, sigma: float, alpha: float) -> float:
    """σ Φ⁻¹(α^(1 / samples)), R where all draws agree, 0 where even then p <= 1/2: nothing is certified from it on."""
    return float(radii(np.array([samples]), samples, sigma, alpha)[0])


def beyond(samples: int, sigma: float, alpha: float) -> str:
    """That nothing is certified from `farthest` on, in words."""
    first = farthest(samples, sigma, alpha)
    return f"{samples:,} samples with sigma = {sigma:g} certify no image from ε = {first:.4g} on"

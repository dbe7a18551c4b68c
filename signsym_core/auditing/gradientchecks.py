"""Checks whether a model's backward pass is its gradient: each a pure function from measured numbers to a finding.

Legend: the numbers of `signsym_core.auditing.probes`, one for each image, [seeds, images] or [images].

Sources: Athalye, Carlini, Wagner 2018 (1802.00420), section 3: shattered, stochastic and vanishing gradients; Croce and
Hein 2020 (2003.01690), whose reference implementation looks for gradients that are exactly 0.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from signsym_core.auditing.finding import Finding, finding

#: Bounds of the median of ρ, and the share of images where it may be 0 or negative.
RHO_LO, RHO_HI, RHO_SHARE = 0.9, 1.1, 0.05
#: Below this correlation the backward pass has another direction than the gradient, whatever its length.
ALIGNED = 0.95
#: Below this η a sign step gains clearly less than one along the exact gradient.
EFFICIENT = 0.9
#: Below this cosine two backward passes at one image count as different.
SAME = 0.999


def wrong_gradient(rho: ArrayLike) -> Finding:
    """The backward pass does not predict the loss: median ρ outside 0.9 .. 1.1, or ρ ≤ 0 for over 5 % of the images.

    ρ = (L(x + hu) - L(x - hu)) / (2h <g, u>), u = sign g. Needs no knowledge of the rule. NaN counts as ρ ≤ 0.
    """
    r = _matrix(rho)
    median = float(np.nanmedian(r)) if np.isfinite(r).any() else 0.0
    against = float(np.mean(~(r > 0)))
    raised = not RHO_LO <= median <= RHO_HI or against > RHO_SHARE
    words = f"median ρ {median:.3g} (1 for a gradient), ρ ≤ 0 for {100 * against:.1f} % of the images"
    names = ("median ρ", "share of images with ρ ≤ 0")
    return finding("wrong_gradient", raised, (median, against), names, r.shape, words)


def wrong_direction(direction: ArrayLike) -> Finding:
    """The backward pass has another direction than the gradient: the median of `Probe.direction` is below 0.95.

    Needs no knowledge of the rule either, and detects a wrong direction whose length happens to fit, which ρ does not.
    NaN (a loss or a gradient that never changes) counts as 0.
    """
    c = np.nan_to_num(_matrix(direction))
    median = float(np.median(c))
    words = f"median correlation with finite differences {median:.2f} (1 for a gradient)"
    return finding("wrong_direction", median < ALIGNED, (median, ALIGNED), ("correlation", "asked for"), c.shape, words)


def inefficient_gradient(efficiency: ArrayLike) -> Finding:
    """A sign step along the backward pass gains less than 0.9 of one along the exact gradient: median η < 0.9."""
    eta = _matrix(efficiency)
    median = float(np.nanmedian(eta)) if np.isfinite(eta).any() else 0.0
    words = f"median η {median:.2f} (1 for the exact gradient)"
    names = ("median η", "asked for")
    return finding("inefficient_gradient", median < EFFICIENT, (median, EFFICIENT), names, eta.shape, words)


def broken_gradient(broken: ArrayLike) -> Finding:
    """The gradient that attacks follow is 0, NaN or infinite at some clean image."""
    b = _matrix(broken)
    share = float(b.mean())
    words = f"no gradient (0, NaN or infinite) at {100 * share:.1f} % of the images"
    names = ("share of images without a gradient", "allowed")
    return finding("broken_gradient", share > 0, (share, 0.0), names, b.shape, words)


def random_gradient(repeat: ArrayLike) -> Finding:
    """Two backward passes at one image differ: a cosine below 0.999 at over 5 % of the images that have a gradient.

    Attacks must then average over draws, which gives another score.
    """
    cosine = _matrix(repeat)
    known = cosine[np.isfinite(cosine)]
    share = float(np.mean(known < SAME)) if known.size else 0.0
    mean = float(known.mean()) if known.size else 1.0
    words = f"mean cosine of two backward passes {mean:.4f}, below {SAME} at {100 * share:.1f} % of the images"
    names = ("share of images that differ", "allowed")
    return finding("random_gradient", share > RHO_SHARE, (share, RHO_SHARE), names, cosine.shape, words)


def random_outputs(unsteady: ArrayLike) -> Finding:
    """Forward passes of one image differ by more than rounding does (see `Probe.unsteady`)."""
    u = _matrix(unsteady)
    share = float(u.mean())
    words = f"two forward passes differ, by more than rounding, at {100 * share:.1f} % of the images"
    names = ("share of images that differ", "allowed")
    return finding("random_outputs", share > 0, (share, 0.0), names, u.shape, words)


def _matrix(values: ArrayLike) -> NDArray[np.float64]:
    matrix = np.atleast_2d(np.asarray(values, dtype=np.float64))
    if not matrix.size:
        raise ValueError(f"expected a number for each image, got shape {list(matrix.shape)}")
    return matrix

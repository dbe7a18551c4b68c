"""How often the 95 % interval of a gap covers the gap that new seeds and images would show, by simulation.

    python -m benchmarks.coverage [--runs N]

Each image has a difficulty N(0, 1.5²) that all models share; each seed of each rule shifts all images of its model by
N(0, spread²) on the same scale; where rules differ by image, each rule shifts each image by N(0, 1). An outcome is 1
with the probability 1 / (1 + exp(-sum)). Both rules are equal on average, so the true gap is 0, and what the interval
does not cover is a false alarm. The peer is the interval with Satterthwaite's degrees of freedom alone.
"""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtrit

from signsym_core.statistics.intervals import gaps

#: Half the width of the interval of each gap, from differences [runs, seeds, images].
Widths = Callable[[NDArray[np.int8]], NDArray[np.float64]]
#: Outcomes that are simulated at once.
AT_ONCE = 3_000_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Coverage:
    """The share of simulated gaps whose interval holds 0, and the median width over the one that a known spread has."""

    covers: float
    width: float


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=int, default=4000)
    runs = parser.parse_args().runs
    print("seeds  images  by image  spread   covers  width    before  width")
    for seeds in (2, 3, 5, 10):
        for images in (300, 1000):
            for by_image in (0.0, 1.0):
                for spread in (0.0, 0.1, 0.2, 0.5, 1.0):
                    ours, peer = (coverage(seeds, images, spread, runs, w, by_image) for w in (ours_of, satterthwaite))
                    where = f"{seeds:5}  {images:6}  {by_image:8}  {spread:6}"
                    numbers = f"{ours.covers:6.3f} {ours.width:6.2f}    {peer.covers:6.3f} {peer.width:6.2f}"
                    print(f"{where}   {numbers}", flush=True)


def ours_of(d: NDArray[np.int8]) -> NDArray[np.float64]:
    """The interval that signsym makes."""
    return np.array([(each.hi - each.lo) / 2 for each in gaps(d, np.zeros_like(d))])


def satterthwaite(d: NDArray[np.int8]) -> NDArray[np.float64]:
    """The two-way interval with Satterthwaite's degrees of freedom, and the residual's where that is all there is."""
    _, s, n = d.shape
    mean, rows, columns = d.mean(axis=(1, 2)), d.mean(axis=2), d.mean(axis=1)
    seed = n * ((rows - mean[:, None]) ** 2).sum(axis=1) / (s - 1)
    image = s * ((columns - mean[:, None]) ** 2).sum(axis=1) / (n - 1)
    freedom = (s - 1) * (n - 1)
    around = ((d - mean[:, None, None]) ** 2).sum(axis=(1, 2))
    rest = (around - seed * (s - 1) - image * (n - 1)) / freedom
    estimate = seed + image - rest
    alone = estimate <= rest
    df = estimate**2 / (seed**2 / (s - 1) + image**2 / (n - 1) + rest**2 / freedom)
    quantile = stdtrit(np.where(alone, freedom, df), 0.975)
    half: NDArray[np.float64] = quantile * np.sqrt(np.where(alone, rest, estimate) / (s * n))
    return half


def coverage(
    seeds: int, images: int, spread: float, runs: int, widths: Widths = ours_of, by_image: float = 0.0
) -> Coverage:
    """Simulate `runs` experiments of two rules."""
    generator = np.random.default_rng(0)
    means, halves = [], []
    at_once = max(1, AT_ONCE // (seeds * images))
    for first in range(0, runs, at_once):
        count = min(at_once, runs - first)
        difficulty = generator.normal(0, 1.5, (count, 1, images))
        outcomes = []
        for _ in range(2):
            logit = difficulty + generator.normal(0, spread, (count, seeds, 1))
            logit = logit + generator.normal(0, by_image, (count, 1, images))
            outcomes.append((generator.random((count, seeds, images)) < 1 / (1 + np.exp(-logit))).astype(np.int8))
        difference = outcomes[0] - outcomes[1]
        means.append(difference.mean(axis=(1, 2)))
        halves.append(widths(difference))
    mean, half = np.concatenate(means), np.concatenate(halves)
    true = 1.96 * float(np.sqrt((mean**2).mean()))
    return Coverage(covers=float((np.abs(mean) <= half).mean()), width=float(np.median(half)) / true)


if __name__ == "__main__":
    main()

"""Outcomes side by side: the seeds and images that cells share.

Legend: X [seeds, images], outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.outcomes import CellOutcomes


def matrix(cells: dict[int, CellOutcomes]) -> NDArray[np.float64] | None:
    """X over the images that all seeds share; None where there are none."""
    images = shared_images(cells.values())
    if images is None:
        return None
    return np.array([_scores_of(cells[seed], images) for seed in sorted(cells)])


def paired(
    first: dict[int, CellOutcomes], second: dict[int, CellOutcomes]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """X of each side, over the seeds and images that both have; None where they share none."""
    both = together([first, second])
    return None if both is None else (both[0], both[1])


def together(sides: Sequence[dict[int, CellOutcomes]]) -> NDArray[np.float64] | None:
    """X of each side [sides, seeds, images], over the seeds and images that all have; None where they share none."""
    seeds = sorted(set.intersection(*map(set, sides))) if sides else []
    images = shared_images([side[seed] for side in sides for seed in seeds])
    if images is None:
        return None
    return np.array([[_scores_of(side[seed], images) for seed in seeds] for side in sides])


def shared_images(outcomes: Iterable[CellOutcomes]) -> NDArray[np.int32] | None:
    """The images that all of these have; None where there are none."""
    shared: NDArray[np.int32] | None = None
    for outcome in outcomes:
        if shared is None:
            shared = outcome.images
        elif outcome.images is not shared and not np.array_equal(outcome.images, shared):
            shared = np.intersect1d(shared, outcome.images, assume_unique=True)
    return None if shared is None or not len(shared) else shared


def _scores_of(outcome: CellOutcomes, images: NDArray[np.int32]) -> NDArray[np.float64]:
    if len(outcome.images) == len(images):
        return outcome.scores.astype(np.float64)
    return outcome.scores[np.searchsorted(outcome.images, images)].astype(np.float64)

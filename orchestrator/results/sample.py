"""The sample of a point: which rows, seeds and images it has, and what is known of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

#: Outcomes of one computation at most.
AT_ONCE = 4_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """The outcomes of one point of a line: one row for each seed; `first` is the position of the first in `Samples`."""

    first: int
    seeds: tuple[int, ...]
    #: Number of images and the number of their list, where all seeds have the same list; otherwise -1.
    n: int
    images: int

    def alike(self, other: Sample) -> bool:
        """Whether both have the same seeds and images, so that they can be paired directly."""
        return self.images == other.images >= 0 and self.seeds == other.seeds


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Measured:
    """All that is known of a sample, over the images that its seeds share."""

    images: NDArray[np.int32]
    #: X [seeds, images].
    scores: NDArray[Any]
    #: For each seed the mean change of the images that survive, see `OutcomeTable.moved`; None where it is unknown for
    #: a seed that has any.
    moved: NDArray[np.float64] | None
    #: Whether the loss has no gradient at each clean image [seeds, images]; None unless it was recorded for all seeds.
    zero: NDArray[np.bool_] | None


def chunks(samples: Sequence[Sample]) -> list[list[int]]:
    """Positions of samples of equal shape, in chunks of at most AT_ONCE outcomes; irregular samples are in none."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for position, sample in enumerate(samples):
        if sample.images >= 0:
            shapes.setdefault((len(sample.seeds), sample.n), []).append(position)
    chunked = []
    for (seeds, n), members in shapes.items():
        size = max(1, AT_ONCE // max(1, seeds * n))
        chunked += [members[position : position + size] for position in range(0, len(members), size)]
    return chunked

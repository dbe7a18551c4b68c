"""What points rest on, for many points at once: which outcomes they have, and the outcomes side by side.

Legend: X [points, seeds, images], outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.index import Index
from orchestrator.results.line import Line
from orchestrator.results.outcomes import Block, Outcome, Outcomes
from orchestrator.results.pairing import matrix, paired, shared_images
from signsym_core.stats import Interval, gap, gaps

#: From so many images on, rows are copied one by one: faster, and without an index as large as eight times the rows.
LONG = 256
#: Outcomes that are computed with at once.
AT_ONCE = 4_000_000
K = TypeVar("K")


@dataclasses.dataclass(frozen=True, slots=True)
class Sample:
    """One point of a line: its rows that have outcomes, one for each seed, as numbers in `Samples`."""

    first: int
    seeds: tuple[int, ...]
    #: Images, if all seeds have the same list of them, and its number; otherwise -1.
    n: int
    images: int

    def alike(self, other: Sample) -> bool:
        """Whether both have the same seeds and images, so that they can be paired as they are."""
        return self.images == other.images >= 0 and self.seeds == other.seeds


class Samples:
    """The samples of some rows of an index, which are in its order."""

    def __init__(self, index: Index, outcomes: Outcomes, rows: NDArray[np.int64]) -> None:
        self._lists = outcomes.images.lists
        part, place = index.part[rows], index.place(rows)
        parts = np.unique(part).tolist()
        self._blocks: Mapping[int, Block] = outcomes.blocks(index, parts)
        at, images, counts = np.full(len(rows), -1), np.full(len(rows), -1), np.zeros(len(rows), np.int64)
        for number in parts:
            here, block = part == number, self._blocks[number]
            at[here] = block.at[place[here]]
            there = here & (at >= 0)
            images[there] = block.source.lists[at[there]]
            counts[there] = block.source.bounds[at[there] + 1] - block.source.bounds[at[there]]
        # Without outcomes a row says nothing here.
        kept = np.flatnonzero(at >= 0)
        line, epsilon, seed = index.line_numbers(rows[kept]), index.epsilon[rows[kept]], index.seed[rows[kept]]
        if _repeated(line, epsilon, seed).any():
            # Of two rows of one seed and epsilon the one with more images counts, and the last one of equals.
            order = np.lexsort((counts[kept], seed, epsilon, line))
            last = order[np.append(~_repeated(line[order], epsilon[order], seed[order]), True)]
            kept, line, epsilon, seed = kept[last], line[last], epsilon[last], seed[last]
        self.rows, self._part, self._at, images = rows[kept], part[kept], at[kept], images[kept]
        new = np.append(len(line) > 0, (line[1:] != line[:-1]) | (epsilon[1:] != epsilon[:-1]))[: len(line)]
        starts = np.flatnonzero(new)
        self._found: dict[tuple[int, float], Sample] = {}
        if len(starts):
            low, high = np.minimum.reduceat(images, starts), np.maximum.reduceat(images, starts)
            common = np.where(low == high, low, -1).tolist()
            stops, names = np.append(starts[1:], len(line)).tolist(), seed.tolist()
            places = zip(line[starts].tolist(), epsilon[starts].tolist(), starts.tolist(), stops, common, strict=True)
            for number, value, start, stop, listed in places:
                n = len(self._lists[listed]) if listed >= 0 else -1
                self._found[number, value] = Sample(start, tuple(names[start:stop]), n, listed)

    def of(self, line: Line, epsilon: float) -> Sample | None:
        """The sample of a point; None where it has no outcomes."""
        return self._found.get((line.number, epsilon))

    def stacked(self, samples: Sequence[Sample]) -> NDArray[Any]:
        """X of samples of one number of seeds and images each: bytes, or float64 where precisions are among them."""
        seeds, n = len(samples[0].seeds), samples[0].n
        chosen = (np.array([sample.first for sample in samples])[:, None] + np.arange(seeds)).ravel()
        part, at = self._part[chosen], self._at[chosen]
        parts = np.unique(part).tolist()
        whole = all(self._blocks[number].source.scores.dtype == np.uint8 for number in parts)
        x: NDArray[Any] = np.empty((len(chosen), n), dtype=np.uint8 if whole else np.float64)
        for number in parts:
            source, here = self._blocks[number].source, np.flatnonzero(part == number)
            starts = source.bounds[at[here]]
            if n < LONG:
                x[here] = source.scores[starts[:, None] + np.arange(n)]
                continue
            for row, start in zip(here.tolist(), starts.tolist(), strict=True):
                x[row] = source.scores[start : start + n]
        return x.reshape(len(samples), seeds, n)

    def regular(self, places: Sequence[tuple[int, float]]) -> dict[tuple[int, float], NDArray[Any]]:
        """X [seeds, images] of those points, by line and epsilon, whose seeds have the same images."""
        there = [(place, sample) for place in places if (sample := self._found.get(place)) is not None]
        found: dict[tuple[int, float], NDArray[Any]] = {}
        for chunk in chunks([sample for _, sample in there]):
            x = self.stacked([there[at][1] for at in chunk])
            found |= {there[at][0]: x[number] for number, at in enumerate(chunk)}
        return found

    def gaps(self, pairs: Mapping[K, tuple[Sample, Sample]]) -> dict[K, Interval]:
        """The gap of each pair, first minus second; nothing of those that share no seed or image."""
        alike = {key: pair for key, pair in pairs.items() if pair[0].alike(pair[1])}
        keys = list(alike)
        found: dict[K, Interval] = {}
        for chunk in chunks([ours for ours, _ in alike.values()]):
            chosen = [keys[at] for at in chunk]
            ours, theirs = (self.stacked([alike[key][side] for key in chosen]) for side in (0, 1))
            found |= dict(zip(chosen, gaps(ours, theirs), strict=True))
        for key, (first, second) in pairs.items():
            if key not in alike and (both := paired(self.outcomes(first), self.outcomes(second))) is not None:
                found[key] = gap(*both)
        return found

    def places(self) -> Mapping[tuple[int, float], Sample]:
        """Every sample by the number of its line and its epsilon."""
        return self._found

    def shared(self, sample: Sample) -> tuple[NDArray[np.int32], NDArray[Any]] | None:
        """The images that all seeds of a sample have, and X [seeds, images] over them; None where there are none."""
        cells = self.outcomes(sample)
        images = shared_images(cells.values())
        x = matrix(cells)
        return None if images is None or x is None else (images, x)

    def zero(self, sample: Sample) -> NDArray[np.bool_] | None:
        """Whether each clean image has no gradient [seeds, images]; None where that is not known of all of them."""
        zeros = [outcome.zero for outcome in self.outcomes(sample).values()]
        known = [zero for zero in zeros if zero is not None]
        return np.array(known) if sample.images >= 0 and len(known) == len(zeros) else None

    def moved(self, sample: Sample) -> NDArray[np.float64]:
        """For each seed the mean change of the images that survive: see `Source.moved`."""
        rows = range(sample.first, sample.first + len(sample.seeds))
        return np.array([self._blocks[int(self._part[row])].source.moved[self._at[row]] for row in rows])

    def images(self, sample: Sample) -> NDArray[np.int32]:
        """The images of a sample whose seeds have the same ones."""
        return self._lists[sample.images]

    def outcomes(self, sample: Sample) -> dict[int, Outcome]:
        """The outcomes of a sample by seed."""
        rows = range(sample.first, sample.first + len(sample.seeds))
        return {seed: self._outcome(row) for seed, row in zip(sample.seeds, rows, strict=True)}

    def _outcome(self, row: int) -> Outcome:
        source, at = self._blocks[int(self._part[row])].source, int(self._at[row])
        start, stop = int(source.bounds[at]), int(source.bounds[at + 1])
        zero = source.zero[start:stop] if source.recorded[at] else None
        return Outcome(self._lists[int(source.lists[at])], source.scores[start:stop], zero)


def _repeated(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """For each row but the last whether the next one is equal in all columns."""
    equal: NDArray[np.bool_] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return equal


def chunks(samples: Sequence[Sample]) -> list[list[int]]:
    """The numbers of samples of one shape together, as many as are to be computed at once; irregular ones in none."""
    shapes: dict[tuple[int, int], list[int]] = {}
    for at, sample in enumerate(samples):
        if sample.images >= 0:
            shapes.setdefault((len(sample.seeds), sample.n), []).append(at)
    found = []
    for (seeds, n), members in shapes.items():
        size = max(1, AT_ONCE // max(1, seeds * n))
        found += [members[at : at + size] for at in range(0, len(members), size)]
    return found

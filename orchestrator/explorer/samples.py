"""What points rest on, for many points at once: which outcomes they have, and the outcomes side by side.

Legend: X [points, seeds, images], outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.explorer.index import Index
from orchestrator.explorer.line import Line
from orchestrator.explorer.outcomes import Block, Outcome, Outcomes

#: From so many images on, rows are copied one by one: faster, and without an index as large as eight times the rows.
LONG = 256


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
    """The samples of some lines, restricted to some seeds or to none."""

    def __init__(self, index: Index, outcomes: Outcomes, lines: Sequence[Line], seeds: frozenset[int]) -> None:
        self._lists = outcomes.images.lists
        rows = np.concatenate([np.arange(line.start, line.stop) for line in lines]) if lines else np.zeros(0, int)
        if seeds:
            rows = rows[np.isin(index.seed[rows], np.array(sorted(seeds)))]
        part, place = index.part[rows], index.place(rows)
        parts = np.unique(part).tolist()
        self._blocks: Mapping[int, Block] = outcomes.blocks(index, parts)
        at, images = np.full(len(rows), -1), np.full(len(rows), -1)
        for number in parts:
            here, block = part == number, self._blocks[number]
            at[here] = block.at[place[here]]
            there = here & (at >= 0)
            images[there] = block.source.lists[at[there]]
        # Without outcomes a row says nothing here; of two rows of one seed and epsilon the last one counts.
        line = index.line_numbers(rows)
        epsilon, seed = index.epsilon[rows], index.seed[rows]
        twice = np.append((line[1:] == line[:-1]) & (epsilon[1:] == epsilon[:-1]) & (seed[1:] == seed[:-1]), False)
        kept = (at >= 0) & ~twice[: len(at)]
        self.rows, self._part, self._at = rows[kept], part[kept], at[kept]
        line, epsilon, seed, images = line[kept], epsilon[kept], seed[kept], images[kept]
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
        shapes: dict[tuple[int, int], list[tuple[tuple[int, float], Sample]]] = {}
        for place in places:
            sample = self._found.get(place)
            if sample is not None and sample.images >= 0:
                shapes.setdefault((len(sample.seeds), sample.n), []).append((place, sample))
        found: dict[tuple[int, float], NDArray[Any]] = {}
        for members in shapes.values():
            x = self.stacked([sample for _, sample in members])
            found |= {place: x[at] for at, (place, _) in enumerate(members)}
        return found

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

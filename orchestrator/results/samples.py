"""The samples of points, for many points at once: their seeds and images, and their outcomes as arrays.

Legend: X [points, seeds, images], outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import DTypeLike, NDArray

from orchestrator.results.index import Index
from orchestrator.results.line import Line
from orchestrator.results.outcomes import CellOutcomes, OutcomeReader
from orchestrator.results.pairing import matrix, paired, shared_images
from orchestrator.results.sample import Measured, Sample, chunks
from signsym_core.statistics.intervals import Interval, gap, gaps

#: From this number of images on, rows are copied one by one: faster, and without an index eight times as large.
LONG = 256
K = TypeVar("K")


class Samples:
    """The samples of some rows of an index, which are in its order."""

    def __init__(self, index: Index, outcomes: OutcomeReader, rows: NDArray[np.int64]) -> None:
        self._lists = outcomes.images.lists
        file_number, row_in_file = index.file_of_row[rows], index.row_in_file(rows)
        files = outcomes.by_file(index, np.unique(file_number).tolist())
        #: The tables of the files, and for each row the number of its table and its position there.
        self._tables = list(dict.fromkeys(file.table for file in files.values()))
        number_of = {table: number for number, table in enumerate(self._tables)}
        owner, position = np.zeros(len(rows), np.int64), np.full(len(rows), -1)
        for number, in_file in _by_number(file_number):
            owner[in_file] = number_of[files[number].table]
            position[in_file] = files[number].positions[row_in_file[in_file]]
        images, counts = np.full(len(rows), -1), np.zeros(len(rows), np.int64)
        for number, in_table in _by_number(owner):
            table, in_table = self._tables[number], in_table[position[in_table] >= 0]
            places = position[in_table]
            images[in_table], counts[in_table] = table.lists[places], table.bounds[places + 1] - table.bounds[places]
        # Rows without outcomes are left out.
        kept = np.flatnonzero(position >= 0)
        line, epsilon, seed = index.line_numbers(rows[kept]), index.epsilon[rows[kept]], index.seed[rows[kept]]
        if _repeated(line, epsilon, seed).any():
            # Of two rows of one seed and epsilon the one with more images counts; at a tie, the last.
            order = np.lexsort((counts[kept], seed, epsilon, line))
            last = order[np.append(~_repeated(line[order], epsilon[order], seed[order]), True)]
            kept, line, epsilon, seed = kept[last], line[last], epsilon[last], seed[last]
        self.rows, self._owner, self._position, images = rows[kept], owner[kept], position[kept], images[kept]
        new = np.append(len(line) > 0, (line[1:] != line[:-1]) | (epsilon[1:] != epsilon[:-1]))[: len(line)]
        starts = np.flatnonzero(new)
        self._samples: dict[tuple[int, float], Sample] = {}
        if len(starts):
            low, high = np.minimum.reduceat(images, starts), np.maximum.reduceat(images, starts)
            common = np.where(low == high, low, -1).tolist()
            stops, names = np.append(starts[1:], len(line)).tolist(), seed.tolist()
            points = zip(line[starts].tolist(), epsilon[starts].tolist(), starts.tolist(), stops, common, strict=True)
            for number, value, start, stop, listed in points:
                n = len(self._lists[listed]) if listed >= 0 else -1
                self._samples[number, value] = Sample(start, tuple(names[start:stop]), n, listed)

    def of(self, line: Line, epsilon: float) -> Sample | None:
        """The sample of a point; None where it has no outcomes."""
        return self._samples.get((line.number, epsilon))

    def stacked(self, samples: Sequence[Sample]) -> NDArray[Any]:
        """X of samples of equal shape [seeds, images]: bytes, or float64 if any has average precisions."""
        numbers = np.unique(self._owner[self._rows_of(samples)]).tolist()
        all_bytes = all(self._tables[number].scores.dtype == np.uint8 for number in numbers)
        return self._stack(samples, "scores", np.uint8 if all_bytes else np.float64)

    def _rows_of(self, samples: Sequence[Sample]) -> NDArray[np.int64]:
        """The position of each seed's row [samples, seeds], of samples with equally many seeds."""
        return np.array([sample.first for sample in samples])[:, None] + np.arange(len(samples[0].seeds))

    def _stack(self, samples: Sequence[Sample], column: str, kind: DTypeLike) -> NDArray[Any]:
        """A column of the outcomes of samples of equal shape, [samples, seeds, images]."""
        rows, n = self._rows_of(samples), samples[0].n
        position = self._position[rows.ravel()]
        stack: NDArray[Any] = np.empty((rows.size, n), dtype=kind)
        for number, chosen in _by_number(self._owner[rows.ravel()]):
            table = self._tables[number]
            values: NDArray[Any] = getattr(table, column)
            starts = table.bounds[position[chosen]]
            if n < LONG:
                stack[chosen] = values[starts[:, None] + np.arange(n)]
                continue
            for row, start in zip(chosen.tolist(), starts.tolist(), strict=True):
                stack[row] = values[start : start + n]
        return stack.reshape(*rows.shape, n)

    def gaps(self, pairs: Mapping[K, tuple[Sample, Sample]]) -> dict[K, Interval]:
        """The gap of each pair, first minus second, without the pairs that share no seed or no image."""
        alike = {key: pair for key, pair in pairs.items() if pair[0].alike(pair[1])}
        keys = list(alike)
        gap_of: dict[K, Interval] = {}
        for chunk in chunks([first_x for first_x, _ in alike.values()]):
            chosen = [keys[position] for position in chunk]
            first_x, second_x = (self.stacked([alike[key][side] for key in chosen]) for side in (0, 1))
            gap_of |= dict(zip(chosen, gaps(first_x, second_x), strict=True))
        for key, (first, second) in pairs.items():
            if key not in alike and (both := paired(self.outcomes(first), self.outcomes(second))) is not None:
                gap_of[key] = gap(*both)
        return gap_of

    def points(self) -> Mapping[tuple[int, float], Sample]:
        """Every sample, by the number of its line and its epsilon."""
        return self._samples

    def measured(self) -> dict[tuple[int, float], Measured]:
        """What is known of every sample, without those whose seeds share no image."""
        moved, recorded = np.full(len(self.rows), np.nan), np.zeros(len(self.rows), dtype=bool)
        for number, chosen in _by_number(self._owner):
            table, cells = self._tables[number], self._position[chosen]
            moved[chosen], recorded[chosen] = table.moved[cells], table.recorded[cells]
        points = list(self._samples)
        known: dict[tuple[int, float], Measured] = {}
        for chunk in chunks([self._samples[point] for point in points]):
            samples = [self._samples[points[position]] for position in chunk]
            rows, x = self._rows_of(samples), self.stacked(samples)
            changes = moved[rows]
            with_zero: list[bool] = np.logical_and.reduce(recorded[rows], axis=1).tolist()
            zero = self._stack(samples, "zero", np.bool_) if any(with_zero) else None
            unknown = _unknown(changes, x)
            for place, (position, sample) in enumerate(zip(chunk, samples, strict=True)):
                known[points[position]] = Measured(
                    images=self._lists[sample.images],
                    scores=x[place],
                    moved=None if unknown[place] else changes[place],
                    zero=None if zero is None or not with_zero[place] else zero[place],
                )
        for point in points:
            if self._samples[point].images < 0 and (shared := self._shared(self._samples[point], moved)) is not None:
                known[point] = shared
        return known

    def _shared(self, sample: Sample, moved: NDArray[np.float64]) -> Measured | None:
        """What is known of a sample over the images that all of its seeds have; None where there are none."""
        cells = self.outcomes(sample)
        images, x = shared_images(cells.values()), matrix(cells)
        if images is None or x is None:
            return None
        changes = moved[self._rows_of([sample])]
        (unknown,) = _unknown(changes, x[None])
        return Measured(images=images, scores=x, moved=None if unknown else changes[0], zero=None)

    def outcomes(self, sample: Sample) -> dict[int, CellOutcomes]:
        """The outcomes of a sample by seed."""
        rows = range(sample.first, sample.first + len(sample.seeds))
        return {seed: self._outcome(row) for seed, row in zip(sample.seeds, rows, strict=True)}

    def _outcome(self, row: int) -> CellOutcomes:
        table, position = self._tables[int(self._owner[row])], int(self._position[row])
        start, stop = int(table.bounds[position]), int(table.bounds[position + 1])
        zero = table.zero[start:stop] if table.recorded[position] else None
        return CellOutcomes(self._lists[int(table.lists[position])], table.scores[start:stop], zero)


def _unknown(changes: NDArray[np.float64], x: NDArray[Any]) -> list[bool]:
    """Of each sample whether its mean change [samples, seeds] is unknown for a seed with survivors in X."""
    survivors: NDArray[np.bool_] = np.logical_or.reduce(x > 0, axis=2)
    unknown: list[bool] = np.logical_or.reduce(np.isnan(changes) & survivors, axis=1).tolist()
    return unknown


def _by_number(numbers_of_rows: NDArray[np.integer[Any]]) -> Iterator[tuple[int, NDArray[np.int64]]]:
    """Each different number with the rows that have it."""
    order = np.argsort(numbers_of_rows, kind="stable")
    numbers, firsts = np.unique(numbers_of_rows[order], return_index=True)
    return zip(numbers.tolist(), np.split(order, firsts)[1:], strict=True)


def _repeated(*columns: NDArray[Any]) -> NDArray[np.bool_]:
    """For each row but the last whether the next one is equal in all columns."""
    equal: NDArray[np.bool_] = np.logical_and.reduce([column[1:] == column[:-1] for column in columns])
    return equal

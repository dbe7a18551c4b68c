"""The store's results by line: which lines there are, and which rows make each of their points.

A line is a model without its seed, under one attack with one source of gradient. The index holds no score: those are
computed from the outcomes of the lines that are looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.explorer.labels import Labels
from orchestrator.explorer.line import LINE, Line, rank


class AmbiguousCurveError(ValueError):
    """Two values for one seed and epsilon of one line: some setting that tells them apart is not looked at."""


class Index:
    """The lines of a table of results (see `orchestrator.tables`), in the order of registries and names."""

    def __init__(self, results: pa.Table) -> None:
        results = _first_of_each_cell(results)
        codes, self._values = _encoded(results)
        numbers, first = _numbered(codes)
        order = np.lexsort((_plain(results, "seed"), _plain(results, "epsilon"), numbers))
        self.table: pa.Table = results.take(pa.array(order)).combine_chunks()
        bounds = np.searchsorted(numbers[order], np.arange(len(first) + 1))
        found = [
            Line(at, tuple(self._values[name][codes[name][row]] for name in LINE), int(bounds[at]), int(bounds[at + 1]))
            for at, row in enumerate(first)
        ]
        #: Every line, by its number.
        self.lines: tuple[Line, ...] = tuple(found)
        self.ordered: tuple[Line, ...] = tuple(sorted(found, key=rank))
        self.epsilon: NDArray[np.float64] = _plain(self.table, "epsilon")
        self.seed: NDArray[np.int64] = _plain(self.table, "seed").astype(np.int64)
        #: Every page asks for them, and a store may have tens of thousands of lines.
        self._choices: dict[str, list[str]] = {}
        self._by_key = {line.key: line for line in found}
        number = numbers[order]
        new = (number[1:] != number[:-1]) | (self.epsilon[1:] != self.epsilon[:-1])
        #: The first row of each line's each epsilon.
        self._points = np.flatnonzero(np.append(len(number) > 0, new))

    def __len__(self) -> int:
        return len(self.table)

    def named(self, key: tuple[str, ...]) -> Line | None:
        """The line with these values of LINE's columns."""
        return self._by_key.get(key)

    def choices(self, column: str) -> list[str]:
        """Every value of a column of FILTERS, in the order of figures."""
        if column not in self._choices:
            at = LINE.index(column)
            self._choices[column] = list(dict.fromkeys(line.key[at] for line in self.ordered))
        return self._choices[column]

    @functools.cached_property
    def seeds(self) -> list[int]:
        """Every seed."""
        return [int(seed) for seed in np.unique(self.seed)]

    def chosen(self, **wanted: tuple[str, ...]) -> Iterator[Line]:
        """The lines whose columns have one of the wanted values each; no value stands for all."""
        tests = [(LINE.index(column), frozenset(values)) for column, values in wanted.items() if values]
        return (line for line in self.ordered if all(line.key[at] in values for at, values in tests))

    def points(self, line: Line) -> NDArray[np.int64]:
        """The first row of each epsilon of a line, ascending."""
        start, stop = np.searchsorted(self._points, (line.start, line.stop))
        return self._points[start:stop]

    def value(self, column: str, row: int) -> object:
        """One value of the table."""
        value: object = self.table[column][row].as_py()
        return value

    def row_of(self, cell: str) -> int | None:
        """The row of the cell whose key is `cell` or begins so; the first where several do."""
        if not cell or not len(self):
            return None
        found = pc.index(self._cells, cell).as_py()
        if found < 0 and len(cell) >= 8:
            found = pc.index(pc.starts_with(self._cells, cell), True).as_py()
        return found if found >= 0 else None

    def line_of(self, row: int) -> Line:
        """The line that a row belongs to."""
        starts = np.array([line.start for line in self.lines])
        return self.lines[int(np.searchsorted(starts, row, "right")) - 1]

    @functools.cached_property
    def _cells(self) -> pa.ChunkedArray:
        return self.table["cell"].cast(pa.string())

    @functools.cached_property
    def labels(self) -> Labels:
        """What the lines are called."""
        return Labels(self.lines)

    def refuse_ambiguous(self, line: Line) -> None:
        """Raises AmbiguousCurveError where the line has two rows for one seed and epsilon."""
        epsilon, seed = self.epsilon[line.start : line.stop], self.seed[line.start : line.stop]
        twice = np.flatnonzero((epsilon[1:] == epsilon[:-1]) & (seed[1:] == seed[:-1]))
        if len(twice):
            at = line.start + int(twice[0])
            jobs = ", ".join(str(self.value("job", row))[:16] for row in (at, at + 1))
            where = f"rule {line.rule}, attack {line.attack}, gradient {line.gradient}, "
            where += f"seed {seed[twice[0]]}, epsilon {epsilon[twice[0]]:g}"
            raise AmbiguousCurveError(
                f"two results for {where} (jobs {jobs}): they differ in a setting that is not shown"
            )


def _first_of_each_cell(results: pa.Table) -> pa.Table:
    """Of a cell that two sweeps computed, the row that was finished first."""
    cells = results["cell"].cast(pa.string())
    if pc.count_distinct(cells).as_py() == len(results):
        return results
    order = pc.sort_indices(results, sort_keys=[("finished_at", "ascending")])
    first = pd.Series(cells.take(order).to_pandas()).drop_duplicates().index.to_numpy()
    return results.take(order.take(pa.array(first)))


def _encoded(results: pa.Table) -> tuple[dict[str, NDArray[np.int64]], dict[str, list[str]]]:
    codes: dict[str, NDArray[np.int64]] = {}
    values: dict[str, list[str]] = {}
    for name in LINE:
        column = results[name].unify_dictionaries().combine_chunks() if len(results) else None
        if column is None or not len(column):
            codes[name], values[name] = np.zeros(0, dtype=np.int64), []
            continue
        chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        # Files of older versions have no parameters of the task: those were the defaults.
        known, missing = chunk.dictionary.to_pylist(), "{}" if name.endswith("_params") else "none"
        if missing not in known:
            known.append(missing)
        codes[name] = np.asarray(pc.fill_null(chunk.indices, known.index(missing))).astype(np.int64)
        values[name] = known
        used = np.unique(codes[name])
        codes[name], values[name] = np.searchsorted(used, codes[name]), [values[name][at] for at in used]
    return codes, values


def _numbered(codes: dict[str, NDArray[np.int64]]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """A number for each distinct combination of codes, and the first row of each."""
    number = np.zeros(len(codes[LINE[0]]), dtype=np.int64)
    first = np.zeros(0, dtype=np.int64)
    for name in LINE:
        step = int(codes[name].max(initial=0)) + 1
        _, first, number = np.unique(number * step + codes[name], return_index=True, return_inverse=True)
    return number, first


def _plain(table: pa.Table, column: str) -> NDArray[np.float64]:
    return np.asarray(table[column].combine_chunks().to_numpy(zero_copy_only=False))

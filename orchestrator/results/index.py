"""The store's results by line: which lines there are, and which rows make each of their points.

A line is a model without its seed, under one attack with one source of gradient. The index holds no interval: those
are computed from the outcomes of the lines that are looked at.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Mapping

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results import members
from orchestrator.results.encoding import encoded, joined, numbered, plain, superseded
from orchestrator.results.labels import Labels
from orchestrator.results.line import ATTACK, FIGURE, LINE, RULE, Line
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.trusted import Expected

#: What pages need of every row; other columns are read for the one row that is looked at.
COLUMNS = (
    *LINE,
    *("cell", "job", "finetune_job", "seed", "epsilon", "epsilon_label", "norm", "value", "n", "chance"),
    *("steps", "step_size", "reach", "nonfinite_grad", "finished_at"),
)

#: Columns whose order is that of their registry; that of the others is the alphabet's.
RANKED = ("attack", "gradient", "rule")


class AmbiguousCurveError(ValueError):
    """Two values for one seed and epsilon of one line: some setting that tells them apart is not looked at."""


class Index:
    """The lines of files of results (see `orchestrator.store.tables`), in the order of registries and names.

    Rows are numbered by line, epsilon and seed. Of a cell that two sweeps computed, the row that was finished first
    is the only one.
    """

    def __init__(self, parts: Mapping[str, pa.Table]) -> None:
        table = joined(parts, COLUMNS)
        # Files of older versions have no parameters of the task: those were the defaults.
        codes = {n: encoded(table[n], "{}" if n.endswith("_params") else "none") for n in LINE}
        number, first = numbered([codes[name] for name in LINE])
        epsilon, seed = encoded(table["epsilon"], 0.0), encoded(table["seed"], 0)
        keys = (number * max(1, len(epsilon.values)) + epsilon.codes) * max(1, len(seed.values)) + seed.codes
        order = np.argsort(keys, kind="stable")
        gone = superseded(table, order, keys[order])
        order = order if gone is None else order[~gone]
        number = number[order]
        self._columns = {name: single(table[name]) for name in COLUMNS}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        #: For each row its place in the files, one after the other.
        self._at: NDArray[np.int64] = order
        self._epsilon, self._seed = epsilon.at(order), seed.at(order)
        self.epsilon: NDArray[np.float64] = np.array(epsilon.values, dtype=np.float64)[self._epsilon.codes]
        self.seed: NDArray[np.int64] = np.array(seed.values, dtype=np.int64)[self._seed.codes]
        #: The first row of each line, and the end.
        self._bounds = np.searchsorted(number, np.arange(len(first) + 1))
        #: The columns by line.
        self._codes = {name: codes[name].at(first) for name in LINE}
        names = zip(*(self._codes[name].texts() for name in LINE), strict=True)
        bounds = self._bounds.tolist()
        found = (Line(at, key, bounds[at], bounds[at + 1]) for at, key in enumerate(names))
        #: Every line, by its number.
        self.lines: tuple[Line, ...] = tuple(found)
        #: The number of each line's panel.
        self.panel: NDArray[np.int64] = numbered([self._codes[name] for name in (*FIGURE, *ATTACK)])[0]
        ranks = [self._rank(name) for name in (*FIGURE, *RANKED, *ATTACK, *RULE)]
        self._order = np.lexsort(ranks[::-1])
        self.ordered: tuple[Line, ...] = tuple(self.lines[at] for at in self._order.tolist())
        new = (number[1:] != number[:-1]) | (self.epsilon[1:] != self.epsilon[:-1])
        #: The first row of each line's each epsilon.
        self._points = np.flatnonzero(np.append(len(number) > 0, new))
        #: The files by number, where each begins, and the file of each row.
        self.parts: tuple[str, ...] = tuple(parts)
        self._ends = np.cumsum([0, *(len(part) for part in parts.values())], dtype=np.int64)
        self.part: NDArray[np.int64] = np.searchsorted(self._ends[1:], order, "right")

    def __len__(self) -> int:
        return len(self._at)

    def _rank(self, name: str) -> NDArray[np.int64]:
        """For each line the place of its value of a column: that of its registry, or else of the alphabet."""
        column = self._codes[name]
        if name not in RANKED:
            return column.codes
        order = sorted(range(len(column.values)), key=lambda at: members.place(name, column.values[at]))
        return np.argsort(np.array(order, dtype=np.int64))[column.codes]

    @functools.cached_property
    def _by_key(self) -> dict[tuple[str, ...], Line]:
        return {line.key: line for line in self.lines}

    def named(self, key: tuple[str, ...]) -> Line | None:
        """The line with these values of LINE's columns."""
        return self._by_key.get(key)

    @functools.cached_property
    def panels(self) -> Mapping[tuple[str, ...], list[Line]]:
        """The lines of each panel, in their order."""
        return self._grouped(lambda line: line.panel)

    @functools.cached_property
    def models(self) -> Mapping[tuple[str, ...], list[Line]]:
        """The lines of each model, in their order."""
        return self._grouped(lambda line: line.model)

    def _grouped(self, by: Callable[[Line], tuple[str, ...]]) -> Mapping[tuple[str, ...], list[Line]]:
        found: dict[tuple[str, ...], list[Line]] = {}
        for line in self.ordered:
            found.setdefault(by(line), []).append(line)
        return found

    @property
    def known(self) -> bool:
        """Whether all rules, attacks and gradients have a place of their own."""
        return all(members.knows(name, value) for name in RANKED for value in self._codes[name].values)

    def choices(self, column: str) -> list[str]:
        """Every value of a column of FILTERS, in the order of figures."""
        values = self._codes[column].values
        if column not in RANKED:
            return list(values)
        return sorted(values, key=lambda value: members.place(column, value))

    @property
    def seeds(self) -> list[int]:
        """Every seed."""
        return [int(seed) for seed in self._seed.values]

    def chosen(self, clean: bool | None = None, **wanted: tuple[str, ...]) -> Iterator[Line]:
        """The lines whose columns have one of the wanted values each; no value stands for all.

        `clean` asks for those of clean performance alone, or for those under attack.
        """
        fits = np.ones(len(self.lines), dtype=bool)
        if clean is not None:
            attack = self._codes["attack"]
            fits = np.array([(value == "none") == clean for value in attack.values], dtype=bool)[attack.codes]
        for name, values in wanted.items():
            if values:
                column = self._codes[name]
                fits &= np.array([value in values for value in column.values], dtype=bool)[column.codes]
        return (self.lines[at] for at in self._order[fits[self._order]].tolist())

    def points(self, line: Line) -> NDArray[np.int64]:
        """The first row of each epsilon of a line, ascending."""
        start, stop = np.searchsorted(self._points, (line.start, line.stop))
        return self._points[start:stop]

    def epsilons(self, lines: Iterable[Line]) -> dict[str, float]:
        """Every epsilon of some lines by its label, ascending."""
        fits = np.zeros(len(self.lines), dtype=bool)
        fits[[line.number for line in lines]] = True
        rows = np.flatnonzero(np.repeat(fits, np.diff(self._bounds)))
        first = np.full(len(self._epsilon.values), -1)
        # Of the rows that are written to one place the last one stays: the first of all.
        first[self._epsilon.codes[rows[::-1]]] = rows[::-1]
        there = first[first >= 0].tolist()
        return {str(self.value("epsilon_label", row)): float(self.epsilon[row]) for row in there}

    @functools.cached_property
    def jobs(self) -> frozenset[str]:
        """The keys of all attack jobs."""
        return frozenset(self._columns["job"].dictionary.to_pylist())

    def value(self, column: str, row: int) -> object:
        """One value of a column of COLUMNS."""
        value: object = self._columns[column][int(self._at[row])].as_py()
        return value

    def texts(self, column: str, rows: NDArray[np.int64]) -> list[str]:
        """A column of texts at some rows; "" where there is none."""
        array = self._columns[column]
        names = [name or "" for name in array.dictionary.to_pylist()]
        # Arrow's own way to fill a null imports pandas.
        codes = array.indices.take(to_arrow(self._at[rows])).to_pylist()
        return ["" if code is None else names[code] for code in codes]

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column of numbers by row; NaN where there is none."""
        if column not in self._numbers:
            self._numbers[column] = plain(self._columns[column])[self._at]
        return self._numbers[column]

    @property
    def last_write(self) -> str:
        """When the last result was finished; "" before there is one."""
        last = pc.max(self._columns["finished_at"]).as_py() if len(self) else None
        return f"{last:%Y-%m-%d %H:%M:%S} UTC" if last else ""

    @property
    def cells(self) -> pa.Array:
        """The keys of all cells of all files."""
        return self._columns["cell"]

    def expected(self, part: int) -> Expected:
        """What the outcomes of all cells of a file must add up to, in its order."""
        start, count = int(self._ends[part]), int(self._ends[part + 1] - self._ends[part])
        cells, n, values = (self._columns[name].slice(start, count) for name in ("cell", "n", "value"))
        return cells, to_numpy(n), to_numpy(values)

    def place(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Where in their files rows are."""
        found: NDArray[np.int64] = self._at[rows] - self._ends[self.part[rows]]
        return found

    def row_of(self, cell: str) -> int | None:
        """The row of the cell whose key is `cell` or begins so; the first where several do."""
        cells = self._columns["cell"]
        at = pc.index(cells, cell).as_py() if cell and len(self) else -1
        if at < 0 and len(cell) >= 8:
            at = pc.index(pc.starts_with(cells, cell), True).as_py()
        if at < 0:
            return None
        # A row that another sweep computed first stands for this one's cell.
        found = np.flatnonzero(self._at == at)
        if not len(found):
            found = np.flatnonzero(np.asarray(pc.equal(cells, cells[at]))[self._at])
        return int(found[0])

    def line_of(self, row: int) -> Line:
        """The line that a row belongs to."""
        return self.lines[int(self.line_numbers(np.array([row]))[0])]

    def line_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the line that each row belongs to."""
        found: NDArray[np.int64] = np.searchsorted(self._bounds, rows, "right") - 1
        return found

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

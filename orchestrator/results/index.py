"""The store's results by line: which lines there are, and which rows make each of their points.

A line is a model without its seed, under one attack with one source of gradient. The index holds no interval: those
are computed from the outcomes of the lines that are shown.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results import members
from orchestrator.results.categories import by_file, encoded, numbered
from orchestrator.results.differing import different, sentences
from orchestrator.results.labels import Labels
from orchestrator.results.line import ATTACK, FIGURE, LINE, RULE, STORED, Line
from orchestrator.results.rows import Rows
from orchestrator.results.superseded import Why, outdated, superseded
from orchestrator.store.arrays import to_arrow, to_numpy
from orchestrator.store.filerows import FileRows

#: Columns ordered as in their registry; the others are ordered alphabetically.
RANKED = ("attack", "gradient", "rule")


class Index(Rows):
    """The lines of files of results (see `orchestrator.store.tables`), in the order of registries and names.

    Rows are numbered by line, epsilon and seed. Of a cell that two sweeps computed, the row that was finished first
    is the only one; for which others another one stands says `Why`. Rows of the cells `without` are left out. With
    `stores`, the store of each file, a line holds the results of one store.
    """

    def __init__(self, files: FileRows, without: pa.Array | None = None, stores: Sequence[str] = ()) -> None:
        super().__init__(files)
        self._join([*STORED, "epsilon", "seed"])
        # Files of older versions have no parameters of the task: those were the defaults.
        codes = {n: encoded(self._column(n), "{}" if n.endswith("_params") else "none") for n in STORED}
        codes["store"] = by_file(stores or [""] * len(files), list(files.lengths.values()))
        epsilon, seed = encoded(self._column("epsilon"), 0.0), encoded(self._column("seed"), 0)
        rows = np.arange(self._ends[-1])
        if without is not None and len(without):
            rows = rows[~to_numpy(pc.is_in(self.cells, value_set=without))]
            codes, epsilon, seed = {n: codes[n].take(rows) for n in LINE}, epsilon.take(rows), seed.take(rows)
        number, first = numbered([codes[name] for name in LINE])
        keys = (number * max(1, len(epsilon.values)) + epsilon.codes) * max(1, len(seed.values)) + seed.codes
        order = np.argsort(keys, kind="stable")
        why = superseded(self._column, rows[order], keys[order])
        if why is not None:
            gone = why > 0
            first_of_key = np.searchsorted(keys[order[~gone]], keys[order[gone]])
            reasons = zip(first_of_key.tolist(), map(Why, why[gone].tolist()), strict=True)
            self._stand_ins = dict(zip(rows[order[gone]].tolist(), reasons, strict=True))
            order = order[~gone]
        number = number[order]
        self._put(rows[order])
        self._epsilon, self._seed = epsilon.take(order), seed.take(order)
        self.epsilon: NDArray[np.float64] = np.array(epsilon.values, dtype=np.float64)[self._epsilon.codes]
        self.seed: NDArray[np.int64] = np.array(seed.values, dtype=np.int64)[self._seed.codes]
        #: The first row of each line, then the end of the last.
        self._bounds = np.searchsorted(number, np.arange(len(first) + 1))
        #: The columns by line.
        self._codes = {name: codes[name].take(first) for name in LINE}
        names = zip(*(self._codes[name].texts() for name in LINE), strict=True)
        bounds = self._bounds.tolist()
        lines = (
            Line(line_number, key, bounds[line_number], bounds[line_number + 1])
            for line_number, key in enumerate(names)
        )
        #: Every line, by its number.
        self.lines: tuple[Line, ...] = tuple(lines)
        #: The number of each line's panel.
        self.panel: NDArray[np.int64] = numbered([self._codes[name] for name in (*FIGURE, *ATTACK)])[0]
        ranks = [self._rank(name) for name in (*FIGURE, *RANKED, *ATTACK, *RULE)]
        self._order = np.lexsort(ranks[::-1])
        self.ordered: tuple[Line, ...] = tuple(self.lines[line_number] for line_number in self._order.tolist())
        new = (number[1:] != number[:-1]) | (self.epsilon[1:] != self.epsilon[:-1])
        #: The first row of each line's each epsilon.
        self._points = np.flatnonzero(np.append(len(number) > 0, new))

    def _rank(self, name: str) -> NDArray[np.integer[Any]]:
        """For each line the rank of its value of a column, in the registry or else in the alphabet."""
        column = self._codes[name]
        if name not in RANKED:
            return column.codes
        order = sorted(range(len(column.values)), key=lambda position: members.rank(name, column.values[position]))
        ranks: NDArray[np.int64] = np.argsort(np.array(order, dtype=np.int64))[column.codes]
        return ranks

    @functools.cached_property
    def _by_key(self) -> dict[tuple[str, ...], Line]:
        return {line.key: line for line in self.lines}

    def named(self, key: tuple[str, ...]) -> Line | None:
        """The line with these values of LINE's columns."""
        return self._by_key.get(key)

    @functools.cached_property
    def panels(self) -> Mapping[tuple[str, ...], list[Line]]:
        """The lines of each panel, in their order."""
        return {lines[0].panel: lines for lines in self._grouped(self.panel)}

    @functools.cached_property
    def models(self) -> Mapping[tuple[str, ...], list[Line]]:
        """The lines of each model, in their order."""
        number, _ = numbered([self._codes[name] for name in LINE if name not in ATTACK])
        return {lines[0].model: lines for lines in self._grouped(number)}

    def _grouped(self, number: NDArray[np.int64]) -> list[list[Line]]:
        """The lines of equal numbers, in their order."""
        groups: dict[int, list[Line]] = {}
        for line, group in zip(self.ordered, number[self._order].tolist(), strict=True):
            groups.setdefault(group, []).append(line)
        return list(groups.values())

    @property
    def known(self) -> bool:
        """Whether all rules, attacks and gradients have a registered rank."""
        return all(members.knows(name, value) for name in RANKED for value in self._codes[name].values)

    def choices(self, column: str) -> list[str]:
        """Every value of a column of FILTERS, in the order of figures."""
        values = self._codes[column].values
        if column not in RANKED:
            return list(values)
        return sorted(values, key=lambda value: members.rank(column, value))

    @property
    def seeds(self) -> list[int]:
        """Every seed."""
        return [int(seed) for seed in self._seed.values]

    def chosen(self, clean: bool | None = None, **values_by_column: tuple[str, ...]) -> Iterator[Line]:
        """The lines whose columns have one of the listed values each; an empty list stands for all values.

        `clean` restricts them to lines of clean performance (True) or to lines under attack (False).
        """
        fits = np.ones(len(self.lines), dtype=bool)
        if clean is not None:
            attack = self._codes["attack"]
            fits = np.array([(value == "none") == clean for value in attack.values], dtype=bool)[attack.codes]
        for name, values in values_by_column.items():
            if values:
                column = self._codes[name]
                fits &= np.array([value in values for value in column.values], dtype=bool)[column.codes]
        return (self.lines[number] for number in self._order[fits[self._order]].tolist())

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
        # Of several rows that are written to one position the last stays, which here is the first row.
        first[self._epsilon.codes[rows[::-1]]] = rows[::-1]
        first_rows = first[first >= 0].tolist()
        return {str(self.value("epsilon_label", row)): float(self.epsilon[row]) for row in first_rows}

    def line_of(self, row: int) -> Line:
        """The line that a row belongs to."""
        return self.lines[int(self.line_numbers(np.array([row]))[0])]

    def line_numbers(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The number of the line that each row belongs to."""
        numbers: NDArray[np.int64] = np.searchsorted(self._bounds, rows, "right") - 1
        return numbers

    @functools.cached_property
    def labels(self) -> Labels:
        """The labels of the lines."""
        return Labels(self.lines)

    @functools.cached_property
    def outdated(self) -> Mapping[int, int]:
        """The first such row of each line with results of an older version of the code than others have that are of
        its attack in its figure, by line number.
        """
        if not pc.max(self._column("revision")).as_py():
            # As in most stores, of whatever size.
            return {}
        revision = np.nan_to_num(self.numbers("revision", np.arange(len(self))))
        group = self.groups((*FIGURE, "attack", "attack_params"))
        return outdated(revision, self.line_numbers(np.arange(len(self))), group)

    def groups(self, columns: Iterable[str]) -> NDArray[np.int64]:
        """For each line the number of the group of lines that have its values of some columns of LINE."""
        return numbered([self._codes[name] for name in columns])[0]

    @property
    def notices(self) -> list[str]:
        """What pages, exports and audits say of the results as a whole, in sentences."""
        return [*self._outdated_lines(), *self.computed_twice()]

    def path(self, file_number: int) -> str:
        """The path of a file of results."""
        return f"results/{self.files[file_number]}.parquet"

    def computed_twice(self) -> list[str]:
        """Which files of one store have different values of a cell, as two sweeps at once on two devices write them."""
        twice = [position for position, (_, why) in self._stand_ins.items() if why is Why.TWICE]
        if not twice:
            return []
        repeated = Rows(self._rows_by_file)
        repeated._put(np.array(twice, dtype=np.int64))
        cells = repeated.counting
        counts = np.flatnonzero(to_numpy(pc.is_in(cells, value_set=self.counting)))
        rows, cells = self.rows_of(cells.take(to_arrow(counts))), cells.take(to_arrow(counts))
        unlike = np.flatnonzero(different(self, rows, repeated, counts))
        values, other_values = self.numbers("value", rows), repeated.numbers("value", counts)
        files, other_files = self.file_of_row[rows], repeated.file_of_row[counts]
        differences = [
            (self.path(files[row]), self.path(other_files[row]), cells[row].as_py(), values[row], other_values[row])
            for row in unlike.tolist()
        ]
        return sentences(differences, "that of the former, which was finished first, counts.")

    def _outdated_lines(self) -> list[str]:
        if not self.outdated:
            return []
        lines = f"{len(self.outdated):,} line{'s' * (len(self.outdated) > 1)}"
        first = self.ambiguity(self.lines[min(self.outdated)])
        return [f"{lines} with results of an older version of signsym neither drawn, compared nor judged: {first}."]

    def ambiguity(self, line: Line) -> str:
        """Why a line is ambiguous, with two rows for one seed and epsilon, or with results of an older version than
        what they would be compared with; "" where it is not.

        Two rows differ in what no column of LINE holds.
        """
        if line.number in self.outdated:
            row = self.outdated[line.number]
            what = f"rule {line.rule}, attack {line.attack}, gradient {line.gradient}, seed {self.seed[row]}"
            older = f"the result for {what} is of an older version of signsym (job {str(self.value('job', row))[:16]})"
            return (
                f"{older}, whose numbers moved since, and there are newer ones of this attack; run the sweep again, "
                f"which computes it anew"
            )
        epsilon, seed = self.epsilon[line.start : line.stop], self.seed[line.start : line.stop]
        twice = np.flatnonzero((epsilon[1:] == epsilon[:-1]) & (seed[1:] == seed[:-1]))
        if not len(twice):
            return ""
        row = line.start + int(twice[0])
        jobs, advice = self.twins(row, row + 1)
        where = f"rule {line.rule}, attack {line.attack}, gradient {line.gradient}, "
        where += f"seed {seed[twice[0]]}, epsilon {epsilon[twice[0]]:g}"
        why = "they differ in a setting that is not shown, or in the version of signsym that computed them"
        return f"two results for {where} ({jobs}): {why}; {advice}"

    def twins(self, row: int, other: int) -> tuple[str, str]:
        """Which two results stand for one point, and what to do about it."""
        jobs = ", ".join(str(self.value("job", twin))[:16] for twin in (row, other))
        advice = "use another --storage for the new ones, or remove the older job's files from results/ and outcomes/"
        return f"jobs {jobs}", advice

"""The store's results by line: which lines there are, and which rows make each of their points.

A line is a model without its seed, under one attack with one source of gradient. The index holds no score: those are
computed from the outcomes of the lines that are looked at.
"""

from __future__ import annotations

import dataclasses
import functools
import json
from collections.abc import Iterator, Mapping

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator import tables
from signsym_core.attacks import ATTACKS
from signsym_core.rules import RULES

#: What is shown in one figure.
FIGURE = ("task", "dataset", "dataset_params", "backbone", "backbone_params", "weights", "finetune", "metric")
#: With these, what is shown in one panel of it, and with RULE, what is one line in it.
ATTACK = ("attack", "attack_params", "gradient")
RULE = ("rule", "rule_params")
LINE = (*FIGURE, *ATTACK, *RULE)
#: Columns that a filter can choose values of.
FILTERS = ("task", "backbone", "dataset", "attack", "gradient", "rule")
#: Sources of an attack's gradient in the order of figures.
GRADIENTS = ("feedback", "exact", "transfer", "none")


class AmbiguousCurveError(ValueError):
    """Two values for one seed and epsilon of one line: some setting that tells them apart is not looked at."""


@dataclasses.dataclass(frozen=True)
class Line:
    """One line's name and its rows, which stand together, sorted by epsilon and seed."""

    number: int
    #: Values of LINE's columns.
    key: tuple[str, ...]
    start: int
    stop: int

    @property
    def rows(self) -> range:
        """The positions of its rows in the index's table."""
        return range(self.start, self.stop)

    @property
    def figure(self) -> tuple[str, ...]:
        """Values of FIGURE's columns."""
        return self.key[: len(FIGURE)]

    @property
    def panel(self) -> tuple[str, ...]:
        """Values of FIGURE's and ATTACK's columns."""
        return self.key[: -len(RULE)]

    @property
    def asked(self) -> tuple[str, ...]:
        """The values of LINE's columns but the metric, by which a grid names the line."""
        at = LINE.index("metric")
        return (*self.key[:at], *self.key[at + 1 :])

    def __getattr__(self, name: str) -> str:
        """The value of one of LINE's columns."""
        if name in LINE:
            return self.key[LINE.index(name)]
        raise AttributeError(name)


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
        self.ordered: tuple[Line, ...] = tuple(sorted(found, key=_rank))
        self.epsilon: NDArray[np.float64] = _plain(self.table, "epsilon")
        self.seed: NDArray[np.int64] = _plain(self.table, "seed")
        self._by_key = {line.key: line for line in found}
        number = numbers[order]
        new = (number[1:] != number[:-1]) | (self.epsilon[1:] != self.epsilon[:-1])
        #: The first row of each line's each epsilon.
        self._points = np.flatnonzero(np.append(len(number) > 0, new))

    @classmethod
    def of_frame(cls, results: pd.DataFrame) -> Index:
        """The index of a data frame with the columns of the results' table."""
        columns = {}
        for field in tables.RESULTS:
            array = pa.Array.from_pandas(results[field.name])
            text = pa.dictionary(pa.int32(), pa.string())
            if field.type == pa.string():
                columns[field.name] = array.cast(pa.string()).dictionary_encode().cast(text)
            elif field.type in (pa.float64(), pa.int64()):
                columns[field.name] = pa.Array.from_pandas(pd.to_numeric(results[field.name], errors="coerce"))
            else:
                columns[field.name] = array
        return cls(pa.table(columns))

    def __len__(self) -> int:
        return len(self.table)

    def named(self, key: tuple[str, ...]) -> Line | None:
        """The line with these values of LINE's columns."""
        return self._by_key.get(key)

    def choices(self, column: str) -> list[str]:
        """Every value of a column of FILTERS, in the order of figures."""
        return list(dict.fromkeys(getattr(line, column) for line in self.ordered))

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
        return next(line for line in self.lines if line.start <= row < line.stop)

    @functools.cached_property
    def _cells(self) -> pa.ChunkedArray:
        return self.table["cell"].cast(pa.string())

    def label(self, line: Line, column: str) -> str:
        """A backbone, data set, attack or rule as figures print it, with its parameters where lines differ in them."""
        name, parameters = getattr(line, column), getattr(line, f"{column}_params")
        if len(self._spellings[column].get(name, ())) < 2:
            return name
        inner = ", ".join(f"{key}={value}" for key, value in _mapping(parameters).items())
        return f"{name}({inner})" if inner else f"{name}(defaults)"

    def title(self, line: Line) -> str:
        """Backbone / data set, with each other setting in which the store's lines differ."""
        parts = [self.label(line, "backbone"), self.label(line, "dataset")]
        varied = [name for name in ("task", "weights", "finetune") if len(self._values[name]) > 1]
        return " / ".join([*parts, *(f"{name} {_short(getattr(line, name))}" for name in varied)])

    @functools.cached_property
    def _spellings(self) -> Mapping[str, dict[str, set[str]]]:
        found: dict[str, dict[str, set[str]]] = {}
        for column in ("backbone", "dataset", "attack", "rule"):
            at, params = LINE.index(column), LINE.index(f"{column}_params")
            for line in self.lines:
                found.setdefault(column, {}).setdefault(line.key[at], set()).add(line.key[params])
        return found or dict.fromkeys(("backbone", "dataset", "attack", "rule"), {})

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
    codes, values = {}, {}
    for name in LINE:
        column = results[name].unify_dictionaries().combine_chunks() if len(results) else None
        if column is None or not len(column):
            codes[name], values[name] = np.zeros(0, dtype=np.int64), []
            continue
        chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
        filled = pc.fill_null(chunk.indices, len(chunk.dictionary))
        codes[name] = np.asarray(filled).astype(np.int64)
        values[name] = [*chunk.dictionary.to_pylist(), "none"]
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


def _rank(line: Line) -> tuple[object, ...]:
    """The order of registries, with names that they do not know at the end."""
    registries = ((line.attack, ATTACKS.names), (line.gradient, GRADIENTS), (line.rule, RULES.names))
    places = [(list(known).index(name) if name in known else len(known), name) for name, known in registries]
    return (*line.figure, *places, line.key)


def _mapping(text: str) -> dict[str, object]:
    try:
        found = json.loads(text)
    except ValueError:
        return {"params": text}
    return found if isinstance(found, dict) else {"params": found}


def _short(text: str) -> str:
    """A setting for a title: long hexadecimal keys only by their beginning."""
    found = _mapping(text)
    if set(found) == {"params"}:
        return str(found["params"])
    return ", ".join(f"{key}={str(value)[:12]}" for key, value in found.items()) or "defaults"

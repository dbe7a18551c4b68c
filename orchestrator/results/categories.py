"""Columns as integer codes: millions of rows are compared and sorted by these, not by their texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.store import tables
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.filerows import FileRows

Numbers = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Categories:
    """A categorical column: its distinct values, in the order of figures, and for each row the number of its value."""

    values: Sequence[Any]
    codes: NDArray[np.integer[Any]]

    def take(self, rows: Numbers) -> Categories:
        """The same values, for these rows."""
        return Categories(self.values, self.codes[rows])

    def texts(self) -> list[Any]:
        """The value of each row."""
        texts: list[Any] = np.array(self.values, dtype=object)[self.codes].tolist()
        return texts

    def distinct(self, rows: Numbers) -> list[Any]:
        """The values of these rows, each once, in their order."""
        return [self.values[code] for code in np.unique(self.codes[rows]).tolist()]


def joined(files: FileRows, columns: Sequence[str]) -> dict[str, pa.Array]:
    """Some columns of all files of results."""
    if files:
        together = files.together(columns)
        return {name: single(together[name]) for name in columns}
    text, kinds = pa.string(), {name: tables.RESULTS.field(name).type for name in columns}
    encoded_text = pa.dictionary(pa.int32(), text)
    return {n: pa.nulls(0, encoded_text if kind == text and n != "cell" else kind) for n, kind in kinds.items()}


def encoded(array: pa.Array, missing: Any) -> Categories:
    """A column by its values; `missing` stands for nulls."""
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array)
    known = array.dictionary.to_pylist()
    if len(known) == 1 and not array.null_count:
        # Most columns have one value in all rows of a store: nothing is stored for them.
        return Categories(known, np.broadcast_to(np.int32(0), len(array)))
    if array.null_count and missing not in known:
        known.append(missing)
    codes = to_numpy(array.indices)
    if array.null_count:
        # Arrow's way to fill nulls imports pandas.
        codes = np.where(to_numpy(array.indices.is_valid()), codes, np.int32(known.index(missing)))
    # A part of a table may have few of its values.
    order = sorted(pc.unique(to_arrow(codes)).to_pylist(), key=lambda position: known[position])
    rank_of = np.zeros(len(known), dtype=np.int32)
    rank_of[order] = np.arange(len(order))
    return Categories([known[position] for position in order], rank_of[codes])


def by_file(values: Sequence[str], counts: Sequence[int]) -> Categories:
    """A column that has one value in all rows of each file, by these values and counts of rows; in their order."""
    distinct = list(dict.fromkeys(values))
    if len(distinct) < 2:
        return Categories(distinct or [""], np.broadcast_to(np.int32(0), sum(counts)))
    return Categories(distinct, np.repeat(np.array([*map(distinct.index, values)], dtype=np.int32), counts))


def numbered(columns: Sequence[Categories]) -> tuple[Numbers, Numbers]:
    """A number for each different combination of values, counted in the order of rows, and the first row of each."""
    number, numbers = np.zeros(len(columns[0].codes), dtype=np.int64), 1
    first = number[:1]
    for column in columns:
        if (values := len(column.values)) > 1:
            if numbers * values >= 1 << 63:
                number = _renumbered(number)
                numbers = int(number.max()) + 1
            number = number * values + column.codes
            numbers *= values
    if numbers > 1:
        number = _renumbered(number)
    if len(number):
        first = np.zeros(int(number.max()) + 1, dtype=np.int64)
        # Of several rows that are written to one position the last one stays.
        first[number[::-1]] = np.arange(len(number))[::-1]
    return number, first


def _renumbered(number: Numbers) -> Numbers:
    """The numbers from 0 on, in the order in which they come."""
    return to_numpy(pc.dictionary_encode(to_arrow(number)).indices).astype(np.int64)


def plain(array: pa.Array) -> NDArray[np.float64]:
    """Numbers; NaN for nulls."""
    column = array.cast(pa.float64(), safe=False)
    if column.null_count == len(column):
        return np.full(len(column), np.nan)
    numbers: NDArray[np.float64] = to_numpy(column)
    return np.where(to_numpy(column.is_valid()), numbers, np.nan) if column.null_count else numbers

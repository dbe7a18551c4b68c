"""Columns as whole numbers: millions of rows are told apart and sorted by these, not by their texts."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.store import tables
from orchestrator.store.arrays import single, to_arrow, to_numpy

Numbers = NDArray[np.int64]


@dataclasses.dataclass(frozen=True)
class Codes:
    """A column: the different values that it has, ascending, and for each row the number of its value."""

    values: Sequence[Any]
    codes: Numbers

    def at(self, rows: Numbers) -> Codes:
        """The same values, for these rows."""
        return Codes(self.values, self.codes[rows])

    def texts(self) -> list[Any]:
        """The value of each row."""
        found: list[Any] = np.array(self.values, dtype=object)[self.codes].tolist()
        return found


def joined(parts: Mapping[str, pa.Table], columns: Sequence[str]) -> pa.Table:
    """The files as one table, each column in one piece."""
    if parts:
        return pa.concat_tables(parts.values()).select(columns).unify_dictionaries().combine_chunks()
    text = pa.dictionary(pa.int32(), pa.string())
    fields = [tables.RESULTS.field(name) for name in columns]
    kinds = [text if f.type == pa.string() and f.name != "cell" else f.type for f in fields]
    schema = pa.schema([pa.field(f.name, kind) for f, kind in zip(fields, kinds, strict=True)])
    return pa.Table.from_batches([], schema)


def encoded(column: pa.ChunkedArray, missing: Any) -> Codes:
    """A column of `joined` by its values; `missing` stands where it has none."""
    array = single(column)
    if not pa.types.is_dictionary(array.type):
        array = pc.dictionary_encode(array)
    known = array.dictionary.to_pylist()
    if len(known) == 1 and not array.null_count:
        # Most columns are the same in every row of a store: nothing is stored for them.
        return Codes(known, np.broadcast_to(np.int64(0), len(array)))
    if array.null_count and missing not in known:
        known.append(missing)
    indices = array.indices if not array.null_count else pc.fill_null(array.indices, known.index(missing))
    codes = to_numpy(indices).astype(np.int64)
    used = np.flatnonzero(np.bincount(codes, minlength=len(known)))
    order = sorted(used.tolist(), key=lambda at: known[at])
    places = np.zeros(len(known), dtype=np.int64)
    places[order] = np.arange(len(order))
    return Codes([known[at] for at in order], places[codes])


def numbered(columns: Sequence[Codes]) -> tuple[Numbers, Numbers]:
    """A number for each different combination of values, counted in the order of rows, and the first row of each."""
    number = np.zeros(len(columns[0].codes), dtype=np.int64)
    first = number[:1]
    for codes in columns:
        if len(codes.values) > 1:
            # Numbers start anew after every column, so that their product stays in 64 bits.
            again = pc.dictionary_encode(to_arrow(number * len(codes.values) + codes.codes)).indices
            number = to_numpy(again).astype(np.int64)
    if len(number):
        first = np.zeros(int(number.max()) + 1, dtype=np.int64)
        # Of the rows that are written to one place the last one stays.
        first[number[::-1]] = np.arange(len(number))[::-1]
    return number, first


def superseded(table: pa.Table, order: Numbers, keys: Numbers) -> NDArray[np.bool_] | None:
    """Which rows in `order`, sorted by `keys`, are of a cell that another of one key has, and was finished before.

    None where there is none.
    """
    same = keys[1:] == keys[:-1]
    if not same.any():
        return None
    suspects = np.flatnonzero(np.append(False, same) | np.append(same, False))
    rows = table.select(["cell", "finished_at"]).take(to_arrow(order[suspects])).combine_chunks()
    cell = to_numpy(pc.fill_null(pc.dictionary_encode(single(rows["cell"])).indices, -1))
    finished = plain(single(rows["finished_at"]).cast(pa.int64()))
    by_cell = np.lexsort((finished, cell))
    later = np.append(False, cell[by_cell][1:] == cell[by_cell][:-1])
    found = np.zeros(len(order), dtype=bool)
    found[suspects[by_cell[later]]] = True
    return found


def plain(array: pa.Array) -> NDArray[np.float64]:
    """Numbers; NaN where there is none."""
    found = array.cast(pa.float64(), safe=False)
    if found.null_count == len(found):
        return np.full(len(found), np.nan)
    numbers: NDArray[np.float64] = to_numpy(found)
    return np.where(to_numpy(found.is_valid()), numbers, np.nan) if found.null_count else numbers

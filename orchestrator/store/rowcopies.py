"""The copied rows of many files as one table: see `store.rowcopy` for what a copy is."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from numpy.typing import NDArray

from orchestrator.store.arrays import flags, single, to_arrow, to_numpy
from orchestrator.store.rowcopy import COUNTS, RowCopy, expect, width

#: The place of a file's line among those that are parsed together, under a name that no column has.
_NUMBER = "#"


def joined(copies: Sequence[RowCopy], schema: pa.Schema, names: Sequence[str], encoded: Collection[str]) -> pa.Table:
    """Some columns of the rows of all copies one after the other, those in `encoded` with a dictionary.

    Raises an exception of any kind for copies that `written` has not made.
    """
    # With a number at the end of each, since what is no object, or two, would shift the rows of the others.
    text = b"\n".join(
        b'%s%s"%s":%d}' % (copy.line[:-1], b"," * (len(copy.line) > 2), _NUMBER.encode(), number)
        for number, copy in enumerate(copies)
    )
    parsed = pyarrow.json.read_json(
        pa.BufferReader(text),
        pyarrow.json.ReadOptions(use_threads=False, block_size=len(text) + 1),
        pyarrow.json.ParseOptions(explicit_schema=_lists(schema, names), unexpected_field_behavior="ignore"),
    )
    expect(parsed[_NUMBER].to_pylist() == list(range(len(copies))))
    rows, columns = np.array([copy.rows for copy in copies]), {}
    owners = to_arrow(np.repeat(np.arange(len(rows)), rows))
    in_bytes = {name for copy in copies for name in copy.numbers}
    for name in names:
        column = _of_runs(single(parsed[name]), single(parsed[name + COUNTS]), rows, owners, name in encoded)
        kind = schema.field(name).type
        if pa.types.is_timestamp(kind):
            column = column.view(kind)
        if name in in_bytes:
            mask = np.repeat([name in copy.numbers for copy in copies], rows)
            numbers = _of_bytes([copy.numbers[name] for copy in copies if name in copy.numbers], kind)
            column = pc.replace_with_mask(column, flags(mask), numbers)
        columns[name] = column
    return pa.table(columns)


def _lists(schema: pa.Schema, names: Sequence[str]) -> pa.Schema:
    """The schema of the objects of many files."""
    fields = [(_NUMBER, pa.int64())]
    for name in names:
        kind = schema.field(name).type
        fields.append((name, pa.list_(pa.int64() if pa.types.is_timestamp(kind) else kind)))
        fields.append((name + COUNTS, pa.list_(pa.int64())))
    return pa.schema(fields)


def _of_runs(lists: pa.Array, counts: pa.Array, rows: NDArray[np.int64], owners: pa.Array, encoded: bool) -> pa.Array:
    """A column of the rows of some files, by the values and counts of each; null where a file has no values.

    `owners` has for each row its file's position.
    """
    sizes, values = _sizes(lists), lists.flatten()
    if encoded:
        values = values.dictionary_encode()
    if not len(values):
        return pa.nulls(len(owners), values.type)
    if counts.null_count == len(counts) and (sizes == 1).all():
        return values.take(owners)
    # A single value is that of all rows.
    counted, of_value, known = _sizes(counts), np.repeat(np.arange(len(rows)), sizes), sizes > 0
    repeats = rows[of_value]
    expect(np.array_equal(np.where(counted > 0, counted, np.minimum(sizes, 1)), sizes))
    repeats[(counted > 0)[of_value]] = to_numpy(counts.flatten())
    expect(not counts.flatten().null_count and bool((repeats > 0).all()))
    expect(np.array_equal(np.bincount(of_value, repeats, len(rows))[known], rows[known]))
    if len(values) == len(owners):
        return values
    order, valid = np.repeat(np.arange(len(values)), repeats), None
    if len(order) < len(owners):
        valid = np.repeat(known, rows)
        order = np.zeros(len(owners), dtype=np.int64)
        order[valid] = np.repeat(np.arange(len(values)), repeats)
    return values.take(to_arrow(order, valid))


def _sizes(lists: pa.Array) -> NDArray[np.int64]:
    """The number of values of each list; 0 for null."""
    return np.diff(to_numpy(lists.offsets))


def _of_bytes(parts: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    data = b"".join(parts)
    if pa.types.is_boolean(kind):
        return flags(np.frombuffer(data, dtype=np.uint8) != 0)
    return pa.Array.from_buffers(kind, len(data) // width(kind), [None, pa.py_buffer(data)])

"""The rows of a small file once more, behind its seal, so that thousands of files are read at once.

Parquet takes milliseconds to find forty columns of a few rows, which was most of the time of a page over thousands of
files. The copy is written with the columns, from the same table, and the seal covers both, so they cannot differ;
where a file has a column that today's schema has not, or has no seal that fits, the columns are read.

A copy is a line of JSON and bytes. The line is a list: the number of rows, the schema, then for each column the value
of all rows; or two lists, values and how often each comes in a row; or {} for numbers of many rows, which are among the
bytes as Arrow has them. Arrays are made once for many copies, since each costs more than to parse the rows of a file.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import zlib
from collections.abc import Collection, Sequence, Set
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.store import tables
from orchestrator.store.arrays import flags, from_values, single, to_arrow, to_numpy
from signsym_core import seal

#: Most characters of a copy: the seal before it must lie within the file's last seal.TAIL bytes. And most rows, since
#: of a large file the columns are read as fast.
MOST, ROWS = 40_000, 1 << 16
#: Rows up to which numbers are written into the line.
FEW = 64
#: What stands between the digest and the copy, with the number of its characters, of so many digits, after it.
_MARK, _DIGITS = b" runs:", 8


class RowCopy(NamedTuple):
    """The rows of one file."""

    rows: int
    #: For each column of the schema its value, its runs, or {}; and by position the bytes of those that have {}.
    columns: list[Any]
    numbers: dict[int, bytes]


def written(table: pa.Table) -> str:
    """What follows the seal of a file that holds `table`; nothing for a large one, and for one without rows."""
    if not 0 < len(table) <= ROWS or not all(pa.types.is_string(kind) or _width(kind) for kind in table.schema.types):
        return ""
    line: list[Any] = [len(table), described(table.schema)]
    numbers = []
    for column in table.combine_chunks().itercolumns():
        array = single(column)
        if pa.types.is_timestamp(array.type):
            array = array.cast(pa.int64())
        if pa.types.is_string(array.type) or array.null_count or len(table) <= FEW:
            line.append(_runs(array))
        else:
            line.append({})
            numbers.append(to_numpy(array).tobytes())
    content = b"\n".join([json.dumps(line, separators=(",", ":")).encode(), b"".join(numbers)])
    copy = base64.b64encode(zlib.compress(content)).decode()
    if len(copy) > MOST:
        return ""
    return f"{_MARK.decode()}{len(copy):0{_DIGITS}}{copy}"


def read(data: bytes, schema: pa.Schema, description: str) -> RowCopy | None:
    """The copy in a file whose seal was checked, for a schema and its description.

    None where there is none, or none that has the columns of this schema but for those of `tables.ADDED`.

    Raises an exception of any kind for a copy that `written` has not made.
    """
    start = data.rfind(seal.MARK.encode(), max(0, len(data) - seal.TAIL))
    if start < 0 or not data.startswith(_MARK, start + len(seal.BLANK)):
        return None
    start += len(seal.BLANK) + len(_MARK)
    stop = start + _DIGITS + int(data[start : start + _DIGITS])
    line, _, content = zlib.decompress(base64.b64decode(data[start + _DIGITS : stop])).partition(b"\n")
    rows, own_description, *columns = json.loads(line.decode())
    right, place, numbers = 0 < rows <= ROWS and len(columns) == own_description.count(";") + 1, 0, {}
    if own_description != description:
        positions = _positions(own_description, description)
        if positions is None:
            return None
        columns = [None if position is None else columns[position] for position in positions]
    # Nothing of a copy may reach into the rows of another.
    for position in [number for number, column in enumerate(columns) if type(column) in (list, dict)]:
        if type(columns[position]) is list:
            values, lengths = columns[position]
            right &= len(values) == len(lengths) and sum(lengths) == rows
        else:
            size = rows * _width(schema.field(position).type)
            numbers[position] = content[place : place + size]
            place += size
    if not right or place != len(content):
        raise ValueError("the copy of its rows is not one that was written")
    return RowCopy(rows, columns, numbers)


def joined(copies: Sequence[RowCopy], schema: pa.Schema, names: Sequence[str], encoded: Collection[str]) -> pa.Table:
    """Some columns of the rows of all copies one after the other, those in `encoded` with a dictionary.

    Raises an exception of any kind for copies that `written` has not made.
    """
    rows = [copy.rows for copy in copies]
    columns, entries = {}, list(zip(*(copy.columns for copy in copies), strict=True))
    for name in names:
        position = schema.get_field_index(name)
        kind, of_files, kinds = schema.types[position], entries[position], set(map(type, entries[position]))
        if kinds == {dict}:
            columns[name] = _of_bytes([copy.numbers[position] for copy in copies], kind)
        elif dict not in kinds:
            columns[name] = _of_runs(*_flat(of_files, rows, kinds), kind, name in encoded)
        else:
            plain = np.array([type(entry) is dict for entry in of_files])
            others = [number for number, is_plain in enumerate(plain.tolist()) if not is_plain]
            runs = _flat([of_files[number] for number in others], [rows[number] for number in others], kinds)
            numbers = _of_bytes([copy.numbers[position] for copy in copies if position in copy.numbers], kind)
            columns[name] = _in_order([_of_runs(*runs, kind, name in encoded), numbers], plain, rows)
    return pa.table(columns)


def described(schema: pa.Schema) -> str:
    """The names and types of the columns of a schema."""
    return ";".join(f"{field.name} {field.type}" for field in schema)


@functools.lru_cache(maxsize=64)
def _positions(older: str, today: str) -> list[int | None] | None:
    """The place of each of today's columns in an older schema, None for one that was added; None for another schema."""
    fields, todays = older.split(";"), today.split(";")
    missing = {field.partition(" ")[0] for field in set(todays) - set(fields)}
    # In another order the bytes of numbers would not follow each other.
    if not missing <= tables.ADDED or [field for field in todays if field in fields] != fields:
        return None
    return [fields.index(field) if field in fields else None for field in todays]


@functools.cache
def _width(kind: pa.DataType) -> int:
    """Bytes of a number in a copy; 0 for a type of other values than numbers."""
    if pa.types.is_boolean(kind):
        return 1
    return int(kind.bit_width) // 8 if pa.types.is_primitive(kind) else 0


def _runs(array: pa.Array) -> Any:
    """The value of all rows, or values and how often each comes in a row."""
    # By their text: 0.0 is equal to -0.0, and NaN to nothing.
    runs = [(next(run), 1 + sum(1 for _ in run)) for _, run in itertools.groupby(array.to_pylist(), repr)]
    return runs[0][0] if len(runs) == 1 else [[value for value, _ in runs], [length for _, length in runs]]


def _flat(entries: Sequence[Any], rows: Sequence[int], kinds: Set[type]) -> tuple[Sequence[Any], Sequence[int]]:
    """The values of the rows of some files, and how often each comes in a row."""
    if list not in kinds:
        return entries, rows
    values: list[Any] = []
    lengths: list[int] = []
    for entry, count in zip(entries, rows, strict=True):
        if type(entry) is list:
            values += entry[0]
            lengths += entry[1]
        else:
            values.append(entry)
            lengths.append(count)
    return values, lengths


def _of_runs(values: Sequence[Any], lengths: Sequence[int], kind: pa.DataType, encoded: bool) -> pa.Array:
    array = from_values(values, kind)
    if encoded:
        array = array.dictionary_encode()
    counts = np.array(lengths)
    return array if (counts == 1).all() else array.take(to_arrow(np.repeat(np.arange(len(values)), counts)))


def _of_bytes(parts: Sequence[bytes], kind: pa.DataType) -> pa.Array:
    data = b"".join(parts)
    if pa.types.is_boolean(kind):
        return flags(np.frombuffer(data, dtype=np.uint8) != 0)
    return pa.Array.from_buffers(kind, len(data) // _width(kind), [None, pa.py_buffer(data)])


def _in_order(parts: Sequence[pa.Array], second: NDArray[np.bool_], rows: Sequence[int]) -> pa.Array:
    """The rows of files in their order, of which those of some are in the second part."""
    counts, order = np.array(rows), np.argsort(second, kind="stable")
    starts = np.empty(len(rows), dtype=np.int64)
    starts[order] = np.cumsum(counts[order]) - counts[order]
    moves = starts - (np.cumsum(counts) - counts)
    return pa.concat_arrays(parts).take(to_arrow(np.arange(counts.sum()) + np.repeat(moves, counts)))

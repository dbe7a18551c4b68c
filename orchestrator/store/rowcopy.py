"""The rows of a small file once more, behind its seal, so that thousands of files are read at once.

Parquet takes milliseconds to find forty columns of a few rows, which was most of the time of a page over thousands of
files. The copy is written with the columns, from the same table, and the seal covers both, so they cannot differ;
where a file has a column that today's schema has not, or has no seal that fits, the columns are read.

A copy is a line of text, a line of JSON, and bytes. The first line has the number of rows, the names of the columns
that are among the bytes, as Arrow has them, and the schema. The object in the second has for each other column that is
not null in all rows a list: the value of all rows; or values, with a list of how often each comes in a row under the
name followed by COUNTS. Arrow parses the lines of many files at once and makes one array of each column.
"""

from __future__ import annotations

import base64
import functools
import itertools
import json
import zlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.json
from numpy.typing import NDArray

from orchestrator.store import tables
from orchestrator.store.arrays import flags, single, to_arrow, to_numpy
from signsym_core import seal

#: Most characters of a copy: the seal before it must lie within the file's last seal.TAIL bytes. And most rows, since
#: of a large file the columns are read as fast.
MOST, ROWS = 40_000, 1 << 16
#: Rows up to which numbers are written into the line.
FEW = 64
#: What a column's name is followed by where its values come more than once.
COUNTS = "*"
#: The place of a file's line among those that are parsed together, under a name that no column has.
_NUMBER = "#"
#: What stands between the digest and the copy, with the number of its characters, of so many digits, after it.
_MARK, _DIGITS = b" rows:", 8


class RowCopy(NamedTuple):
    """The rows of one file."""

    rows: int
    #: The object that has the columns, and the bytes of those that it does not have.
    line: bytes
    numbers: dict[str, bytes]


def written(table: pa.Table) -> str:
    """What follows the seal of a file that holds `table`; nothing for a large one, and for one without rows."""
    if not 0 < len(table) <= ROWS or not all(pa.types.is_string(kind) or _width(kind) for kind in table.schema.types):
        return ""
    line: dict[str, list[Any]] = {}
    numbers: dict[str, bytes] = {}
    for name, column in zip(table.column_names, table.combine_chunks().itercolumns(), strict=True):
        array = single(column)
        if pa.types.is_timestamp(array.type):
            array = array.cast(pa.int64())
        finite = not pa.types.is_floating(array.type) or bool(np.isfinite(to_numpy(array.drop_null())).all())
        if not finite and array.null_count:
            return ""
        if finite and (pa.types.is_string(array.type) or array.null_count or len(table) <= FEW):
            values, counts = _runs(array)
            if values != [None]:
                line[name] = values
            if len(values) > 1:
                line[name + COUNTS] = counts
        else:
            numbers[name] = to_numpy(array).tobytes()
    first = f"{len(table)} {','.join(numbers)} {described(table.schema)}"
    text = f"{first}\n{json.dumps(line, separators=(',', ':'))}\n".encode()
    copy = base64.b64encode(zlib.compress(text + b"".join(numbers.values()))).decode()
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
    first, line, content = zlib.decompress(base64.b64decode(data[start + _DIGITS : stop])).split(b"\n", 2)
    count, names, own_description = first.decode().split(" ", 2)
    rows, place, numbers = int(count), 0, {}
    if own_description != description and not _readable(own_description, description):
        return None
    for name in filter(None, names.split(",")):
        size = rows * _width(schema.field(name).type)
        numbers[name] = content[place : place + size]
        place += size
    # Nothing of a copy may reach into the rows of another.
    _expect(0 < rows <= ROWS and place == len(content))
    return RowCopy(rows, line, numbers)


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
        pyarrow.json.ParseOptions(explicit_schema=_lists(schema, tuple(names)), unexpected_field_behavior="ignore"),
    )
    _expect(parsed[_NUMBER].to_pylist() == list(range(len(copies))))
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


def described(schema: pa.Schema) -> str:
    """The names and types of the columns of a schema."""
    return ";".join(f"{field.name} {field.type}" for field in schema)


@functools.lru_cache(maxsize=64)
def _readable(older: str, today: str) -> bool:
    """Whether rows of an older schema lack no columns but those that were added, and have no others."""
    fields, todays = set(older.split(";")), set(today.split(";"))
    return fields <= todays and {field.partition(" ")[0] for field in todays - fields} <= tables.ADDED


@functools.lru_cache(maxsize=64)
def _lists(schema: pa.Schema, names: tuple[str, ...]) -> pa.Schema:
    """The schema of the objects of many files."""
    fields = [(_NUMBER, pa.int64())]
    for name in names:
        kind = schema.field(name).type
        fields.append((name, pa.list_(pa.int64() if pa.types.is_timestamp(kind) else kind)))
        fields.append((name + COUNTS, pa.list_(pa.int64())))
    return pa.schema(fields)


@functools.cache
def _width(kind: pa.DataType) -> int:
    """Bytes of a number in a copy; 0 for a type of other values than numbers."""
    if pa.types.is_boolean(kind):
        return 1
    return int(kind.bit_width) // 8 if pa.types.is_primitive(kind) else 0


def _runs(array: pa.Array) -> tuple[list[Any], list[int]]:
    """The values of an array without repetitions, and how often each comes in a row."""
    # By their text: 0.0 is equal to -0.0.
    runs = [(next(run), 1 + sum(1 for _ in run)) for _, run in itertools.groupby(array.to_pylist(), repr)]
    return [value for value, _ in runs], [count for _, count in runs]


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
    _expect(np.array_equal(np.where(counted > 0, counted, np.minimum(sizes, 1)), sizes))
    repeats[(counted > 0)[of_value]] = to_numpy(counts.flatten())
    _expect(not counts.flatten().null_count and bool((repeats > 0).all()))
    _expect(np.array_equal(np.bincount(of_value, repeats, len(rows))[known], rows[known]))
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
    return pa.Array.from_buffers(kind, len(data) // _width(kind), [None, pa.py_buffer(data)])


def _expect(right: bool) -> None:
    if not right:
        raise ValueError("the copy of its rows is not one that was written")

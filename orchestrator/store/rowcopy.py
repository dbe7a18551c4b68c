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
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.json

from orchestrator.store import tables
from orchestrator.store.arrays import single, to_numpy
from signsym_core import seal

#: Most characters of a copy: the seal before it must lie within the file's last seal.TAIL bytes. And most rows, since
#: of a large file the columns are read as fast.
MOST, ROWS = 40_000, 1 << 16
#: Rows up to which numbers are written into the line.
FEW = 64
#: What a column's name is followed by where its values come more than once.
COUNTS = "*"
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
    if not 0 < len(table) <= ROWS or not all(pa.types.is_string(kind) or width(kind) for kind in table.schema.types):
        return ""
    line: dict[str, list[Any]] = {}
    numbers: dict[str, bytes] = {}
    for name, column in zip(table.column_names, table.combine_chunks().itercolumns(), strict=True):
        array = single(column)
        if array.null_count == len(array):
            continue
        if pa.types.is_timestamp(array.type):
            array = array.cast(pa.int64())
        finite = not pa.types.is_floating(array.type) or bool(np.isfinite(to_numpy(array.drop_null())).all())
        if not finite and array.null_count:
            return ""
        if finite and (pa.types.is_string(array.type) or array.null_count or len(table) <= FEW):
            values, counts = _runs(array)
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
        size = rows * width(schema.field(name).type)
        numbers[name] = content[place : place + size]
        place += size
    # Nothing of a copy may reach into the rows of another.
    expect(0 < rows <= ROWS and place == len(content))
    return RowCopy(rows, line, numbers)


def described(schema: pa.Schema) -> str:
    """The names and types of the columns of a schema."""
    return ";".join(f"{field.name} {field.type}" for field in schema)


@functools.lru_cache(maxsize=64)
def _readable(older: str, today: str) -> bool:
    """Whether rows of an older schema lack no columns but those that were added, and have no others."""
    fields, todays = set(older.split(";")), set(today.split(";"))
    return fields <= todays and {field.partition(" ")[0] for field in todays - fields} <= tables.ADDED


@functools.cache
def width(kind: pa.DataType) -> int:
    """Bytes of a number in a copy; 0 for a type of other values than numbers."""
    if pa.types.is_boolean(kind):
        return 1
    return int(kind.bit_width) // 8 if pa.types.is_primitive(kind) else 0


def _runs(array: pa.Array) -> tuple[list[Any], list[int]]:
    """The values of an array without repetitions, and how often each comes in a row."""
    # By their text: 0.0 is equal to -0.0.
    runs = [(next(run), 1 + sum(1 for _ in run)) for _, run in itertools.groupby(array.to_pylist(), repr)]
    return [value for value, _ in runs], [count for _, count in runs]


def expect(right: bool) -> None:
    """Raises ValueError where something about a copy is not right."""
    if not right:
        raise ValueError("the copy of its rows is not one that was written")

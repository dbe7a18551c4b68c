"""The rows of a small file once more, behind its seal, for a reader that knows their schema.

Parquet takes milliseconds to find forty columns of a few rows, which was most of the time of a page over thousands of
files. The copy is one Arrow record batch, read as it lies there. It is written with the columns, from the same table,
and the seal covers both, so they cannot differ; where the schema is another than today's, or the file has no seal that
fits, the columns are read.
"""

from __future__ import annotations

import base64
import functools
import hashlib

import pyarrow as pa

from signsym_core import seal

#: Most characters of a copy: the seal before it must lie within the file's last seal.TAIL bytes.
MOST = 40_000
#: What stands between the digest and the copy, with the schema's fingerprint after it.
_MARK = b" rows:"
#: Characters of a schema's fingerprint and of a number.
_PRINT, _DIGITS = 16, 8


def written(table: pa.Table) -> str:
    """What follows the seal of a file that holds `table`; nothing for a large one and for one without rows."""
    batches = table.combine_chunks().to_batches()
    if len(batches) != 1:
        return ""
    message = batches[0].serialize()
    copy = base64.b64encode(pa.compress(message, codec="zstd", asbytes=True)).decode()
    if len(copy) > MOST:
        return ""
    return f"{_MARK.decode()}{fingerprint(table.schema)}{message.size:0{_DIGITS}}{len(copy):0{_DIGITS}}{copy}"


def read(data: bytes, schema: pa.Schema, print_of_schema: str) -> pa.RecordBatch | None:
    """The rows of a file whose seal was checked, where it has a copy of them of this very schema."""
    start = data.rfind(seal.MARK.encode(), max(0, len(data) - seal.TAIL))
    begin = _MARK + print_of_schema.encode()
    if start < 0 or not data.startswith(begin, start + len(seal.BLANK)):
        return None
    start += len(seal.BLANK) + len(begin)
    size, length = (int(data[place : place + _DIGITS]) for place in (start, start + _DIGITS))
    copy = base64.b64decode(data[start + 2 * _DIGITS : start + 2 * _DIGITS + length])
    return pa.ipc.read_record_batch(pa.decompress(copy, size, codec="zstd"), schema)


@functools.cache
def fingerprint(schema: pa.Schema) -> str:
    """What says that two schemas have the same columns of the same types in the same order."""
    columns = ";".join(f"{field.name} {field.type}" for field in schema)
    return hashlib.sha256(columns.encode()).hexdigest()[:_PRINT]

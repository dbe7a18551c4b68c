"""Conversions between arrow's arrays, numpy's and Python's values.

Arrow's conversions import pandas first, which takes longer than the conversions here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_arrow(numbers: NDArray[np.int64], valid: NDArray[np.bool_] | None = None) -> pa.Array:
    """An int64 array as an arrow array, without a copy where it is contiguous; null where it is not `valid`."""
    contiguous = np.ascontiguousarray(numbers, dtype=np.int64)
    known = None if valid is None else _bits(valid)
    return pa.Array.from_buffers(pa.int64(), len(contiguous), [known, pa.py_buffer(contiguous)])


def flags(values: NDArray[np.bool_]) -> pa.Array:
    """Truth values as an arrow array."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def _bits(values: NDArray[np.bool_]) -> pa.Buffer:
    return pa.py_buffer(np.packbits(values, bitorder="little"))


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """An arrow array of numbers or truth values as a numpy array; the values at nulls are undefined."""
    buffer, span = array.buffers()[1], slice(array.offset, array.offset + len(array))
    if not len(array):
        return np.zeros(0, dtype=array.type.to_pandas_dtype())
    if pa.types.is_boolean(array.type):
        first = array.offset // 8
        bits = np.frombuffer(buffer, dtype=np.uint8)[first : (span.stop + 7) // 8]
        return np.unpackbits(bits, bitorder="little")[span.start - 8 * first :][: len(array)].view(np.bool_)
    return np.frombuffer(buffer, dtype=array.type.to_pandas_dtype())[span]


def single(column: pa.ChunkedArray) -> pa.Array:
    """A column as one array: of several chunks, as pandas may leave them, all, and not the first."""
    if column.num_chunks == 1:
        return column.chunk(0)
    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)

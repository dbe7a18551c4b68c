"""Conversions between arrow's arrays and numpy's.

Arrow's conversions import pandas first, which takes longer than the conversions here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_arrow(numbers: NDArray[np.int64]) -> pa.Array:
    """An int64 array as an arrow array, without a copy where it is contiguous."""
    contiguous = np.ascontiguousarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(contiguous), [None, pa.py_buffer(contiguous)])


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
    """A column of one chunk, or of none, as an array."""
    return column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)

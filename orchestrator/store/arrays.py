"""Conversions between arrow's arrays, numpy's and Python's values.

Arrow's conversions import pandas first, which takes longer than the conversions here.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_arrow(numbers: NDArray[np.int64]) -> pa.Array:
    """An int64 array as an arrow array, without a copy where it is contiguous."""
    contiguous = np.ascontiguousarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(contiguous), [None, pa.py_buffer(contiguous)])


def flags(values: NDArray[np.bool_]) -> pa.Array:
    """Truth values as an arrow array."""
    return pa.Array.from_buffers(pa.bool_(), len(values), [None, _bits(values)])


def from_values(values: Sequence[Any], kind: pa.DataType) -> pa.Array:
    """Texts, numbers, truth values, or timestamps as whole numbers, as an arrow array; None is null.

    Raises TypeError, ValueError or OverflowError for a value that is none of `kind`.
    """
    if pa.types.is_string(kind):
        builder = pa.lib.StringBuilder()
        builder.append_values(values)
        return builder.finish()
    known = np.fromiter((value is not None for value in values), np.bool_, len(values))
    is_flag = pa.types.is_boolean(kind)
    number = np.int64 if pa.types.is_timestamp(kind) else np.bool_ if is_flag else kind.to_pandas_dtype()
    numbers = np.fromiter((0 if value is None else value for value in values), number, len(values))
    valid = None if known.all() else _bits(known)
    return pa.Array.from_buffers(kind, len(values), [valid, _bits(numbers) if is_flag else pa.py_buffer(numbers)])


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
    """A column of one chunk, or of none, as an array."""
    return column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)

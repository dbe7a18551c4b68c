"""Arrow's arrays as numpy has them and back.

Arrow's own conversions import pandas first, which takes longer than what is converted here.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray


def to_arrow(numbers: NDArray[np.int64]) -> pa.Array:
    """Whole numbers as arrow has them."""
    found = np.ascontiguousarray(numbers, dtype=np.int64)
    return pa.Array.from_buffers(pa.int64(), len(found), [None, pa.py_buffer(found)])


def to_numpy(array: pa.Array) -> NDArray[Any]:
    """An arrow array of numbers or truth values as numpy has it; nulls, if there are any, have no meaning there."""
    buffer, here = array.buffers()[1], slice(array.offset, array.offset + len(array))
    if not len(array):
        return np.zeros(0, dtype=array.type.to_pandas_dtype())
    if pa.types.is_boolean(array.type):
        return np.unpackbits(np.frombuffer(buffer, dtype=np.uint8), bitorder="little")[here].view(np.bool_)
    return np.frombuffer(buffer, dtype=array.type.to_pandas_dtype())[here]


def single(column: pa.ChunkedArray) -> pa.Array:
    """A column that is in one piece, or has none, as an array."""
    return column.chunk(0) if column.num_chunks else pa.nulls(0, column.type)

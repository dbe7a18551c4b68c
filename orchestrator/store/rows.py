"""Checks of a table's rows, so that no impossible number is shown. A file with a row that fails is foreign.

Each check reads the columns that are present, since most readers load only a few. Text may be dictionary-encoded.
"""

from __future__ import annotations

import functools
import json
import math
from collections.abc import Callable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.store.arrays import single, to_numpy

#: The largest difference between a stored value and the mean of its outcomes: those of retrieval are float32.
ROUNDING = 1e-5

#: Columns of one chunk each.
Columns = Mapping[str, pa.Array]
_METRICS, _NORMS = ("top1", "map"), ("linf", "l2")


def check_types(actual: pa.Schema, expected: pa.Schema) -> None:
    """Raises ValueError for a column of another type: a cast, such as of numbers to truth values, would hide it."""
    kinds = dict(zip(actual.names, actual.types, strict=True))
    for name, kind in zip(expected.names, expected.types, strict=True):
        if name in kinds and not _alike(kinds[name], kind):
            raise ValueError(f"column {name} holds {kinds[name]}, expected {kind}")


def check_results(columns: Columns) -> None:
    """Raises ValueError for an impossible result, such as a value outside 0 .. 1, no images or an epsilon below 0."""
    _filled(columns, "cell", "job", "task", "dataset", "backbone", "weights", "finetune", "rule", "attack", "gradient")
    _filled(columns, "epsilon_label", "seed", "value", "n", "epsilon", "metric")
    _within(columns, (0, 1), "value", "chance")
    _within(columns, (1, None), "n")
    _within(columns, (0, None), "epsilon", "seed", "steps", "queries", "failed_starts", "seconds")
    _within(columns, (0, None), "gpu_share", "gpu_peak", "gpu_total")
    _texts(columns, _METRICS.__contains__, "top1 or map", "metric")
    _texts(columns, _NORMS.__contains__, "linf or l2", "norm")
    _texts(columns, _is_object, "the JSON of an object", "finetune", *(n for n in columns if n.endswith("_params")))


def check_outcomes(columns: Columns) -> None:
    """Raises ValueError for a row without its cell or image, or without exactly one of robust and ap."""
    _filled(columns, "cell", "image")
    if "robust" in columns and "ap" in columns:
        robust, precision = columns["robust"], columns["ap"]
        plain = not robust.null_count and precision.null_count == len(precision)
        if not plain and (row := _first(_valid(robust) == _valid(precision))):
            raise ValueError(f"row {row}: expected either robust or ap, got both or neither")
    _within(columns, (0, 1), "ap")
    _within(columns, (0, 2**31 - 1), "image")
    _within(columns, (0, None), "linf", "queries")
    # Infinite for an image without an adversarial example.
    _within(columns, (0, math.inf), "distance")
    _within(columns, (-1, 1), "cosine")
    _within(columns, (0, 1), "sign_agreement", "confidence")
    _within(columns, (0, None), "grad_l1", "grad_l2", "linearity")


def check_failures(columns: Columns) -> None:
    """Raises ValueError for a failure without its job or its reason."""
    _filled(columns, "job", "title", "error")


def check_examples(columns: Columns) -> None:
    """Raises ValueError for an image without its cell, number or bytes."""
    _filled(columns, "cell", "image", "clean", "adversarial")


def check_alignment(columns: Columns) -> None:
    """Raises ValueError for a layer without its job or epoch, and for numbers that no angle, cosine or share has."""
    _filled(columns, "job", "epoch", "layer")
    _within(columns, (0.0, 180.0), "angle")
    _within(columns, (-1.0 - 1e-9, 1.0 + 1e-9), "cosine")
    _within(columns, (0.0, 1.0), "sign_agreement")
    _within(columns, (0.0, None), "norm", "norm_bp", "ratio", "feedback_ratio")


_CHECKS: Mapping[str, Callable[[Columns], None]] = {
    "results": check_results,
    "outcomes": check_outcomes,
    "failures": check_failures,
    "examples": check_examples,
    "alignment": check_alignment,
}


def check(folder: str, table: pa.Table) -> None:
    """Raises ValueError for a table with a row that `folder` cannot have; the tables of some folders have no check."""
    if folder in _CHECKS:
        _CHECKS[folder]({name: single(table[name]) for name in table.column_names})


def _filled(columns: Columns, *names: str) -> None:
    for name in names:
        if name in columns and columns[name].null_count:
            raise ValueError(f"row {_first(~_valid(columns[name]))}: column {name} is empty")


def _within(columns: Columns, ends: tuple[float, float | None], *names: str) -> None:
    """Raises ValueError for NaN and a number outside the ends; without an upper end any finite number is within."""
    low, high = ends
    for name in names:
        column = columns.get(name)
        if column is None or column.null_count == len(column):
            continue
        numbers = to_numpy(column)
        # NaN compares as false.
        within = (numbers >= low) & (np.isfinite(numbers) if high is None else numbers <= high)
        # Nulls are checked by `_filled`.
        if not within.all() and (row := _first(~within & _valid(column))):
            expected = f"{low} or more" if high in (None, math.inf) else f"{low} .. {high}"
            raise ValueError(f"row {row}: column {name} is {numbers[row - 1]}, expected {expected}")


def _texts(columns: Columns, fits: Callable[[str], bool], expected: str, *names: str) -> None:
    for name in names:
        if name not in columns:
            continue
        column = columns[name]
        values = column.dictionary if pa.types.is_dictionary(column.type) else column.unique()
        for value in values.to_pylist():
            if value is not None and not fits(value):
                raise ValueError(f"column {name} is {value[:60]!r}, expected {expected}")


def _valid(column: pa.Array) -> NDArray[np.bool_]:
    return to_numpy(column.is_valid())


def _first(rows: NDArray[np.bool_]) -> int:
    """The number, counted from 1, of the first true row; 0 where none is."""
    return int(rows.argmax()) + 1 if rows.any() else 0


@functools.lru_cache(maxsize=4096)
def _is_object(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except (ValueError, RecursionError):
        return False


def _alike(actual: pa.DataType, expected: pa.DataType) -> bool:
    if pa.types.is_dictionary(actual):
        actual = actual.value_type
    if pa.types.is_timestamp(expected):
        return bool(pa.types.is_timestamp(actual))
    text = pa.types.is_string(expected) and pa.types.is_large_string(actual)
    return bool(text or actual == expected)

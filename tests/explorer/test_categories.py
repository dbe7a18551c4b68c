"""Columns as integer codes: the numbers of combinations of values, against a written-out loop."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest

from orchestrator.results.categories import Categories, encoded, numbered
from orchestrator.store.arrays import single


def looped(columns):
    """The number of each row's combination in the order in which they come, and the first row of each."""
    known: dict[tuple[int, ...], int] = {}
    first = []
    numbers = []
    for row, codes in enumerate(zip(*(column.codes.tolist() for column in columns), strict=True)):
        if codes not in known:
            known[codes] = len(known)
            first.append(row)
        numbers.append(known[codes])
    return numbers, first


@pytest.mark.parametrize("values", [2, 50_000], ids=["few", "more combinations than 64 bits hold"])
def test_rows_are_numbered_by_their_combination_of_values(values):
    generator = np.random.default_rng(0)
    drawn = generator.integers(0, values, (6, 40), dtype=np.int32)
    # Each row comes again, in another order.
    order = np.concatenate([np.arange(40), generator.permutation(40)])
    columns = [Categories(range(values), codes[order]) for codes in drawn]
    columns.insert(3, Categories(["alone"], np.zeros(80, dtype=np.int32)))
    numbers, first = numbered(columns)
    assert (numbers.tolist(), first.tolist()) == looped(columns)


def test_a_column_has_the_values_that_its_rows_have_in_order_and_one_for_nulls():
    whole = pa.array(["b", "unused", "a", None, "b", "a"]).dictionary_encode()
    part = pa.concat_arrays([whole.slice(0, 1), whole.slice(2)])
    column = encoded(part, "none")
    assert list(column.values) == ["a", "b", "none"]
    assert column.texts() == ["b", "a", "none", "b", "a"]
    assert list(encoded(whole.slice(0, 0), "none").values) == []


def test_a_column_of_several_chunks_is_all_of_them():
    # Of pandas, whose columns may have a chunk for each file.
    assert single(pa.chunked_array([["a"], ["b", "c"]])).to_pylist() == ["a", "b", "c"]
    assert single(pa.chunked_array([], pa.string())).to_pylist() == []

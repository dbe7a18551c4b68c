"""Which of several results of one point counts, and why the others do not."""

from __future__ import annotations

import enum
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.categories import Numbers, plain
from orchestrator.store.arrays import to_arrow, to_numpy


class Why(enum.IntEnum):
    """Why another result of the same line, seed and ε stands for one."""

    COUNTS = 0
    #: It is the same cell, finished later.
    TWICE = 1
    #: It is of an older version of the code, whose numbers moved.
    OLDER = 2
    #: It is on fewer images: an attack takes the first of a test set, so that the other one has its images too.
    FEWER = 3
    #: Its examples were made on another surrogate, of an other seed too, and before.
    SURROGATE = 4
    #: It has the same score and changes of pixels on as many images, and was finished later: the grid's `images` was
    #: changed to another number above that of the test images.
    ALIKE = 5


def superseded(column: Callable[[str], pa.Array], order: Numbers, keys: Numbers) -> NDArray[np.int8] | None:
    """For the rows in `order`, sorted by `keys`, the number of `Why`; None where each key has one row.

    Two fine-tunes of one seed are two models, of which neither stands for the other unless its version is older. What
    counts after all of this more than once for a key is ambiguous.
    """
    same = keys[1:] == keys[:-1]
    if not same.any():
        return None
    suspects = np.flatnonzero(np.append(False, same) | np.append(same, False))
    places, key = to_arrow(order[suspects]), keys[suspects]
    texts = (column(name).take(places) for name in ("cell", "finetune_job", "surrogate_job"))
    cell, model, surrogate = (to_numpy(pc.fill_null(pc.dictionary_encode(text).indices, -1)) for text in texts)
    finished = plain(column("finished_at").take(places).cast(pa.int64()))
    revision, images = np.nan_to_num(plain(column("revision").take(places))), plain(column("n").take(places))
    why = np.zeros(len(suspects), dtype=np.int8)
    by_cell = np.lexsort((finished, cell))
    later = np.append(False, cell[by_cell][1:] == cell[by_cell][:-1])
    why[by_cell[later]] = Why.TWICE
    why[(why == 0) & (revision < _largest(key, revision, why))] = Why.OLDER
    group = np.unique(key * (int(model.max()) + 2) + model + 1, return_inverse=True)[1]
    why[(why == 0) & (images < _largest(group, images, why))] = Why.FEWER
    last = _largest(group, finished, why)
    by_group = np.full(int(group.max()) + 1, -1)
    latest = (why == 0) & (finished == last)
    by_group[group[latest]] = surrogate[latest]
    kept = by_group[group]
    why[(why == 0) & (surrogate >= 0) & (kept >= 0) & (surrogate != kept)] = Why.SURROGATE
    alike = np.ones(len(suspects), dtype=bool)
    for name in ("value", "reach"):
        number = np.nan_to_num(plain(column(name).take(places)))
        alike &= _largest(group, number, why) == -_largest(group, -number, why)
    why[(why == 0) & alike & (-finished < _largest(group, -finished, why))] = Why.ALIKE
    every = np.zeros(len(order), dtype=np.int8)
    every[suspects] = why
    return every


def _largest(group: Numbers, numbers: NDArray[np.float64], why: NDArray[np.int8]) -> NDArray[np.float64]:
    """For each row the largest number of its group, of rows that count."""
    names, place = np.unique(group, return_inverse=True)
    largest = np.full(len(names), -np.inf)
    np.fmax.at(largest, place[why == 0], numbers[why == 0])
    return largest[place]


def outdated(revision: NDArray[np.float64], line: Numbers, group: Numbers) -> dict[int, int]:
    """The first row of each line with results of an older version than others of its group have, by line number.

    `revision` and `line` are of each row, `group` of each line. What a figure compares would otherwise be two things.
    """
    newest = np.zeros(int(group.max()) + 1)
    np.maximum.at(newest, group[line], revision)
    older = np.flatnonzero(revision < newest[group[line]])
    numbers, first = np.unique(line[older], return_index=True)
    return dict(zip(numbers.tolist(), older[first].tolist(), strict=True))

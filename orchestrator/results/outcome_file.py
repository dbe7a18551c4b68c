"""A file of outcomes in compact form: a byte for each image, and one list of images for all cells that share it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.categories import plain
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.tally import OutcomeTally


class ImageLists:
    """Lists of images by number: most cells of a store have the same one."""

    def __init__(self) -> None:
        self.lists: list[NDArray[np.int32]] = []
        self._numbers: dict[bytes, int] = {}
        #: Several stores that are shown together have the same lists, and are read at the same time.
        self._lock = threading.Lock()

    def number(self, images: NDArray[np.int32]) -> int:
        """The number of an ascending list."""
        with self._lock:
            number = self._numbers.setdefault(images.tobytes(), len(self.lists))
            if number == len(self.lists):
                self.lists.append(images.copy())
            return number


@dataclasses.dataclass(frozen=True, eq=False)
class OutcomeTable:
    """The outcomes of several cells, concatenated, each sorted by image."""

    cells: pa.Array
    #: Start of the outcomes of each cell, then the end of the last.
    bounds: NDArray[np.int64]
    #: The number of each cell's list of images.
    lists: NDArray[np.int32]
    #: 1 for a robust image and 0 for one that is not, as bytes; or the average precision of a query.
    scores: NDArray[np.uint8] | NDArray[np.float32]
    #: Whether the loss had no gradient at the clean image, and for which cells that was recorded.
    zero: NDArray[np.bool_]
    recorded: NDArray[np.bool_]
    #: For each cell the mean, over the robust images, of the largest change of a pixel; NaN where no image is robust,
    #: or where the change of one is not recorded.
    moved: NDArray[np.float64]

    @functools.cached_property
    def tally(self) -> OutcomeTally:
        """Count and mean of the outcomes of each cell."""
        counts, starts = np.diff(self.bounds), self.bounds[:-1]
        sums = np.add.reduceat(self.scores, starts, dtype=np.float64) if len(starts) else np.zeros(0)
        return OutcomeTally(self.cells, counts, sums / counts)

    @functools.cached_property
    def nbytes(self) -> int:
        """Bytes of memory."""
        arrays = (self.bounds, self.lists, self.scores, self.zero, self.recorded, self.moved)
        return int(self.cells.nbytes) + sum(array.nbytes for array in arrays)


def outcome_table(table: pa.Table, images: ImageLists) -> OutcomeTable:
    """A table of outcomes in compact form; of an image that comes twice in a cell the first row counts."""
    column = single(table["cell"])
    codes, image = to_numpy(column.indices), to_numpy(single(table["image"])).astype(np.int32)
    scores, zero, recorded = _scores(table), _flags(table["zero_grad"]), _is_known(table["zero_grad"])
    change = _change(table["linf"], scores)
    order = _order(codes, image)
    if order is not None:
        codes, image = codes[order], image[order]
        scores, zero, recorded = scores[order], zero[order], recorded[order]
        change = None if change is None else change[order]
    starts = np.flatnonzero(np.append(len(codes) > 0, codes[1:] != codes[:-1]))
    bounds = np.append(starts, len(codes)).astype(np.int64)
    return OutcomeTable(
        cells=column.dictionary.take(to_arrow(codes[starts])),
        bounds=bounds,
        lists=_numbered(image, bounds, images),
        scores=scores,
        zero=zero,
        recorded=np.logical_and.reduceat(recorded, starts) if len(starts) else np.zeros(0, dtype=bool),
        moved=_means(change, scores > 0, starts),
    )


def joined(tables: Sequence[OutcomeTable]) -> OutcomeTable:
    """Several tables as one. A cell that is in more than one is kept in each place; a search returns the first."""
    if len(tables) == 1:
        return tables[0]
    ends = np.cumsum([0, *(len(table.scores) for table in tables)])
    bounds = [table.bounds[:-1] + end for table, end in zip(tables, ends, strict=False)]
    return OutcomeTable(
        cells=pa.concat_arrays([table.cells for table in tables]) if tables else pa.nulls(0, pa.string()),
        bounds=np.concatenate([*bounds, ends[-1:]]).astype(np.int64),
        lists=np.concatenate([np.zeros(0, dtype=np.int32), *(table.lists for table in tables)]),
        scores=np.concatenate([np.zeros(0, dtype=np.uint8), *(table.scores for table in tables)]),
        zero=np.concatenate([np.zeros(0, dtype=bool), *(table.zero for table in tables)]),
        recorded=np.concatenate([np.zeros(0, dtype=bool), *(table.recorded for table in tables)]),
        moved=np.concatenate([np.zeros(0), *(table.moved for table in tables)]),
    )


def _change(column: pa.ChunkedArray, scores: NDArray[Any]) -> NDArray[np.float64] | None:
    """The largest change of a pixel of each robust image, 0 for the others; None where that was not recorded."""
    if column.null_count == len(column):
        return None
    change: NDArray[np.float64] = np.where(scores > 0, plain(single(column)), 0.0)
    return change


def _means(
    change: NDArray[np.float64] | None, counted: NDArray[np.bool_], starts: NDArray[np.int64]
) -> NDArray[np.float64]:
    """The mean of `change` over the rows of each cell that are counted; it is 0 in the others."""
    if change is None or not len(starts):
        return np.full(len(starts), np.nan)
    rows = np.add.reduceat(counted, starts, dtype=np.int64)
    means: NDArray[np.float64] = np.where(rows > 0, np.add.reduceat(change, starts) / np.maximum(rows, 1), np.nan)
    return means


def _order(codes: NDArray[np.int32], image: NDArray[np.int32]) -> NDArray[np.int64] | None:
    """The rows sorted by cell and image, each pair once; None where they are sorted already."""
    ascending = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (image[1:] > image[:-1]))
    if ascending.all():
        return None
    order = np.lexsort((image, codes))
    codes, image = codes[order], image[order]
    kept: NDArray[np.int64] = order[np.append(True, (codes[1:] != codes[:-1]) | (image[1:] != image[:-1]))]
    return kept


def _numbered(image: NDArray[np.int32], bounds: NDArray[np.int64], images: ImageLists) -> NDArray[np.int32]:
    """The number of the list of each cell."""
    cells = len(bounds) - 1
    if cells and (np.diff(bounds) == bounds[1]).all() and (image.reshape(cells, -1) == image[: bounds[1]]).all():
        return np.full(cells, images.number(image[: bounds[1]]), dtype=np.int32)
    numbers = [images.number(image[start:stop]) for start, stop in itertools.pairwise(bounds.tolist())]
    return np.array(numbers, dtype=np.int32)


def _scores(table: pa.Table) -> NDArray[np.uint8] | NDArray[np.float32]:
    robust, precision = _flags(table["robust"]).view(np.uint8), table["ap"]
    if precision.null_count == len(precision):
        return robust
    known = _is_known(precision)
    scores = robust.astype(np.float32)
    scores[known] = to_numpy(single(precision).fill_null(0.0))[known]
    return scores


def _flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """A column of truth values; false where it is null."""
    if column.null_count == len(column):
        return np.zeros(len(column), dtype=bool)
    return to_numpy(single(column).fill_null(False) if column.null_count else single(column))


def _is_known(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    if column.null_count in (0, len(column)):
        return np.full(len(column), not column.null_count)
    return to_numpy(single(column).is_valid())

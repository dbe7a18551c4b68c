"""One file of outcomes in small form: a byte for each image, and one list of images for all cells that share it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.encoding import plain
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.trusted import OutcomeTally


class ImageLists:
    """Lists of images by number: most cells of a store have the same one."""

    def __init__(self) -> None:
        self.lists: list[NDArray[np.int32]] = []
        self._numbers: dict[bytes, int] = {}

    def number(self, images: NDArray[np.int32]) -> int:
        """The number of an ascending list."""
        found = self._numbers.setdefault(images.tobytes(), len(self.lists))
        if found == len(self.lists):
            self.lists.append(images.copy())
        return found


@dataclasses.dataclass(frozen=True)
class Source:
    """The outcomes of different cells, one after the other, each sorted by image."""

    cells: pa.Array
    #: Where the outcomes of each cell begin, and the end.
    bounds: NDArray[np.int64]
    #: The number of each cell's list of images.
    lists: NDArray[np.int32]
    #: 1 for a robust image and 0 for one that is not, as bytes; or the average precision of a query.
    scores: NDArray[np.uint8] | NDArray[np.float32]
    #: Whether the loss had no gradient at the clean image, and for which cells that was recorded.
    zero: NDArray[np.bool_]
    recorded: NDArray[np.bool_]
    #: For each cell the mean over the images that survive of the largest change of a pixel; NaN without one, or where
    #: the change of one is not known.
    moved: NDArray[np.float64]

    @functools.cached_property
    def tally(self) -> OutcomeTally:
        """What the outcomes of each cell add up to."""
        counts, starts = np.diff(self.bounds), self.bounds[:-1]
        sums = np.add.reduceat(self.scores, starts, dtype=np.float64) if len(starts) else np.zeros(0)
        return OutcomeTally(self.cells, counts, sums / counts)

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""
        arrays = (self.bounds, self.lists, self.scores, self.zero, self.recorded, self.moved)
        return int(self.cells.nbytes) + sum(array.nbytes for array in arrays)


def source(table: pa.Table, images: ImageLists) -> Source:
    """A table of outcomes; of an image that comes twice in a cell the first row counts."""
    column = single(table["cell"])
    codes, image = to_numpy(column.indices), to_numpy(single(table["image"])).astype(np.int32)
    scores, zero, recorded = _scores(table), _flags(table["zero_grad"]), _there(table["zero_grad"])
    change = np.where(scores > 0, plain(single(table["linf"])), 0.0)
    order = _order(codes, image)
    if order is not None:
        codes, image = codes[order], image[order]
        scores, zero, recorded, change = scores[order], zero[order], recorded[order], change[order]
    starts = np.flatnonzero(np.append(len(codes) > 0, codes[1:] != codes[:-1]))
    bounds = np.append(starts, len(codes)).astype(np.int64)
    return Source(
        cells=column.dictionary.take(to_arrow(codes[starts])),
        bounds=bounds,
        lists=_numbered(image, bounds, images),
        scores=scores,
        zero=zero,
        recorded=np.logical_and.reduceat(recorded, starts) if len(starts) else np.zeros(0, dtype=bool),
        moved=_means(change, scores > 0, starts),
    )


def joined(sources: Sequence[Source]) -> Source:
    """Several sources as one; of a cell that is in more than one, all are there and the first is found first."""
    if len(sources) == 1:
        return sources[0]
    ends = np.cumsum([0, *(len(each.scores) for each in sources)])
    bounds = [each.bounds[:-1] + end for each, end in zip(sources, ends, strict=False)]
    return Source(
        cells=pa.concat_arrays([each.cells for each in sources]) if sources else pa.nulls(0, pa.string()),
        bounds=np.concatenate([*bounds, ends[-1:]]).astype(np.int64),
        lists=np.concatenate([np.zeros(0, dtype=np.int32), *(each.lists for each in sources)]),
        scores=np.concatenate([np.zeros(0, dtype=np.uint8), *(each.scores for each in sources)]),
        zero=np.concatenate([np.zeros(0, dtype=bool), *(each.zero for each in sources)]),
        recorded=np.concatenate([np.zeros(0, dtype=bool), *(each.recorded for each in sources)]),
        moved=np.concatenate([np.zeros(0), *(each.moved for each in sources)]),
    )


def _means(change: NDArray[np.float64], counted: NDArray[np.bool_], starts: NDArray[np.int64]) -> NDArray[np.float64]:
    """The mean of `change` over the rows of each cell that are counted; it is 0 in the others."""
    if not len(starts):
        return np.zeros(0)
    rows = np.add.reduceat(counted, starts, dtype=np.int64)
    means: NDArray[np.float64] = np.where(rows > 0, np.add.reduceat(change, starts) / np.maximum(rows, 1), np.nan)
    return means


def _order(codes: NDArray[np.int32], image: NDArray[np.int32]) -> NDArray[np.int64] | None:
    """The rows by cell and image, each pair once; None where they are so already."""
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
    found = [images.number(image[start:stop]) for start, stop in itertools.pairwise(bounds.tolist())]
    return np.array(found, dtype=np.int32)


def _scores(table: pa.Table) -> NDArray[np.uint8] | NDArray[np.float32]:
    robust, precision = _flags(table["robust"]).view(np.uint8), table["ap"]
    if precision.null_count == len(precision):
        return robust
    there = _there(precision)
    found = robust.astype(np.float32)
    found[there] = to_numpy(single(precision).fill_null(0.0))[there]
    return found


def _flags(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    """A column of truth values; false where there is none."""
    if column.null_count == len(column):
        return np.zeros(len(column), dtype=bool)
    return to_numpy(single(column).fill_null(False) if column.null_count else single(column))


def _there(column: pa.ChunkedArray) -> NDArray[np.bool_]:
    if column.null_count in (0, len(column)):
        return np.full(len(column), not column.null_count)
    return to_numpy(single(column).is_valid())

"""Outcomes of cells by image, read when a line is looked at and kept in small form."""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable, Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator import tables
from orchestrator.explorer.reading import Folder
from orchestrator.store import Store

_COLUMNS = ("cell", "image", "robust", "ap", "zero_grad")


@dataclasses.dataclass(frozen=True, slots=True)
class Outcome:
    """What became of the images of one cell, sorted by image."""

    images: NDArray[np.int64]
    #: 1 for a robust image and 0 for one that is not, or the average precision of a query.
    scores: NDArray[np.float32]
    #: Whether the loss had no gradient at the clean image; None where that was not recorded.
    zero: NDArray[np.bool_] | None

    @property
    def mean(self) -> float:
        """The score over the images."""
        return float(self.scores.sum(dtype=np.float64)) / len(self.scores)


class Outcomes:
    """The outcomes of a store: a file for each job, or, where small files were merged, files with any names."""

    def __init__(self, store: Store) -> None:
        self.folder = Folder(store, "outcomes", tables.OUTCOMES, _COLUMNS)
        self._cells: dict[str, Outcome] = {}
        self._read: set[str] = set()
        self._shared: dict[bytes, NDArray[np.int64]] = {}
        self._lock = threading.Lock()

    def load(self, jobs: Iterable[str]) -> None:
        """Read what is not read yet: the jobs' own files, and if some have none, the files that are no job's."""
        with self._lock:
            wanted = sorted(set(jobs) - self._read)
            if not wanted:
                return
            there = set(self.folder.names())
            own = [job for job in wanted if job in there]
            self._take(own)
            if len(own) < len(wanted):
                merged = sorted(there - self._read)
                self._take(merged)
            # A job without a file may get one later, when the sweep that runs has written it.
            self._read.difference_update(set(wanted) - there)

    def of(self, cell: str) -> Outcome | None:
        """The outcomes of a cell of a job that was loaded; None where the store has none."""
        return self._cells.get(cell)

    def _take(self, names: list[str]) -> None:
        # In portions: the tables of a big store do not fit into memory beside what is made of them.
        for at in range(0, len(names), 64):
            for name, table in self.folder.read(names[at : at + 64]).items():
                for cell, outcome in _by_cell(table, self._shared).items():
                    self._cells.setdefault(cell, outcome)
                self._read.add(name)


def _by_cell(table: pa.Table, shared: dict[bytes, NDArray[np.int64]]) -> Mapping[str, Outcome]:
    """The table's outcomes cell by cell, of an image that comes twice the first; lists of images are shared."""
    if not len(table):
        return {}
    column = table["cell"].unify_dictionaries().combine_chunks()
    chunk = column.chunk(0) if isinstance(column, pa.ChunkedArray) else column
    codes = np.asarray(chunk.indices)
    images = np.asarray(table["image"])
    scores = _scores(table)
    zero = table["zero_grad"].combine_chunks()
    recorded = np.asarray(zero.is_valid())
    zeros = np.asarray(zero.fill_null(False).to_numpy(zero_copy_only=False), dtype=bool)
    later = (codes[1:] > codes[:-1]) | ((codes[1:] == codes[:-1]) & (images[1:] > images[:-1]))
    if not later.all():
        order = np.lexsort((images, codes))
        codes, images, scores, zeros, recorded = (a[order] for a in (codes, images, scores, zeros, recorded))
        new = np.append(True, (codes[1:] != codes[:-1]) | (images[1:] != images[:-1]))
        if not new.all():
            codes, images, scores, zeros, recorded = (a[new] for a in (codes, images, scores, zeros, recorded))
    starts = np.append(np.flatnonzero(np.append(True, codes[1:] != codes[:-1])), len(codes))
    names = chunk.dictionary.to_pylist()
    found = {}
    for start, stop in itertools.pairwise(starts.tolist()):
        listed = images[start:stop]
        listed = shared.setdefault(listed.tobytes(), listed.copy() if len(listed) < len(images) else listed)
        zero_here = zeros[start:stop] if recorded[start:stop].all() else None
        found[names[codes[start]]] = Outcome(listed, scores[start:stop], zero_here)
    return found


def _scores(table: pa.Table) -> NDArray[np.float32]:
    robust = table["robust"].combine_chunks()
    scores = np.asarray(robust.fill_null(False).to_numpy(zero_copy_only=False)).astype(np.float32)
    precision = table["ap"].combine_chunks()
    if precision.null_count < len(precision):
        there = np.asarray(precision.is_valid())
        scores[there] = np.asarray(precision.fill_null(0.0).to_numpy(zero_copy_only=False))[there]
    return scores

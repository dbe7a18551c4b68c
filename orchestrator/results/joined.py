"""The results of several stores as one set, in which a cell that two of them have counts once."""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import operator
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.differing import Difference, different, sentences
from orchestrator.results.examples import Example
from orchestrator.results.index import Index
from orchestrator.results.kept_outcomes import FileOutcomes
from orchestrator.results.live_store import LiveStore
from orchestrator.results.outcome_file import ImageLists
from orchestrator.results.superseded import Why
from orchestrator.store.filerows import FileRows
from orchestrator.store.folder import BYTES_AT_ONCE

_SEVERAL = "what several stores hold belongs to the index of several stores"


class JoinedIndex(Index):
    """The index of several stores by their names.

    A cell that two of them have counts once, and of a cell with two values neither is taken. With `apart` each store
    has lines of its own, with all of its cells.
    """

    def __init__(self, stores: Mapping[str, LiveStore], apart: bool = False) -> None:
        #: The index of each store when this one was made, and the number of its first file here.
        self.index_of = {name: store.snapshot.index for name, store in stores.items()}
        starts = itertools.accumulate((len(index.files) for index in self.index_of.values()), initial=0)
        self.firsts = dict(zip(self.index_of, starts, strict=False))
        files = [store.indexed.prefixed(f"{name} ") for name, store in stores.items()]
        self._uris = {name: store.uri for name, store in stores.items()}
        #: Which files have different values of one cell, in sentences, and those cells.
        advice = "each store shows its own." if apart else "neither counts. Choose one of the stores to see its own."
        self.problems, self.differing = _differing(self._uris, self.index_of, advice)
        names = [name for name, index in self.index_of.items() for _ in index.files]
        all_files = functools.reduce(operator.or_, files, FileRows())
        super().__init__(all_files, *((None, names) if apart else (self.differing,)))

    @property
    def notices(self) -> list[str]:
        """Those of `Index`, and which stores have results for which newer ones of another store stand."""
        older = [position for position, (_, why) in self._stand_ins.items() if why is Why.OLDER]
        files = np.searchsorted(self._ends, older, "right") - 1
        counts = collections.Counter(self.store_of_file(number) for number in files.tolist())
        return super().notices + [
            f"{count:,} result{'s' * (count > 1)} of {name} do{'es' * (count == 1)} not count: of an older version of "
            f"signsym, whose numbers moved, where there are newer ones of the same points."
            for name, count in counts.items()
        ]

    def store_of(self, row: int) -> str:
        """The name of the store that a row is from."""
        return self.store_of_file(int(self.file_of_row[row]))

    def store_of_file(self, number: int) -> str:
        """The name of the store that a file is from."""
        return [name for name, first in self.firsts.items() if first <= number][-1]

    def cells_by_store(self) -> dict[str, pa.Array]:
        """The cells that count from each store, by its name."""
        cells, ends = self.counting, [*self.firsts.values(), len(self.files)][1:]
        return {
            name: cells.filter(pa.array((first <= self.file_of_row) & (self.file_of_row < end)))
            for (name, first), end in zip(self.firsts.items(), ends, strict=True)
        }

    def path(self, file_number: int) -> str:
        """The path of a file of results."""
        name = self.store_of_file(file_number)
        return _path(self._uris[name], self.index_of[name].files[file_number - self.firsts[name]])

    def twins(self, row: int, other: int) -> tuple[str, str]:
        """Which two results stand for one point, and what to do about it."""
        if self.store_of(row) == self.store_of(other):
            return super().twins(row, other)
        paths = (self.path(int(self.file_of_row[twin])) for twin in (row, other))
        return " and ".join(paths), "choose one of the stores to see its own"

    def by_store(self, rows: Sequence[int]) -> dict[str, dict[int, int]]:
        """The rows by the name of their store, with the row in the index of that store."""
        by_store: dict[str, dict[int, int]] = {}
        for row in rows:
            name = self.store_of(row)
            in_store = self.index_of[name].row_of(str(self.value("cell", row)))
            assert in_store is not None, "the row is from this store"
            by_store.setdefault(name, {})[row] = in_store
        return by_store


class JoinedOutcomes:
    """The outcomes of several stores, which have the same lists of images."""

    def __init__(self, stores: Mapping[str, LiveStore], images: ImageLists) -> None:
        self._stores, self.images = stores, images

    @property
    def full(self) -> bool:
        """Whether reading more would drop outcomes that are kept."""
        return any(store.outcomes.full for store in self._stores.values())

    def batches(self, index: Index, most: int = BYTES_AT_ONCE) -> Iterator[range]:
        """The numbers of the index's files in batches whose outcomes can be read together: see `Folder.batches`."""
        assert isinstance(index, JoinedIndex), _SEVERAL
        for name, first in index.firsts.items():
            for few in self._stores[name].outcomes.batches(index.index_of[name], most):
                yield range(first + few.start, first + few.stop)

    def by_file(self, index: Index, file_numbers: Iterable[int]) -> Mapping[int, FileOutcomes]:
        """The outcomes of files of results, by the number of the file in the index."""
        assert isinstance(index, JoinedIndex), _SEVERAL
        by_store: dict[str, list[int]] = {}
        for number in file_numbers:
            name = index.store_of_file(number)
            by_store.setdefault(name, []).append(number - index.firsts[name])
        return {
            index.firsts[name] + number: outcomes
            for name, numbers in by_store.items()
            for number, outcomes in self._stores[name].outcomes.by_file(index.index_of[name], numbers).items()
        }


class JoinedCells:
    """What is stored of single cells in several stores."""

    def __init__(self, stores: Mapping[str, LiveStore]) -> None:
        self._stores = stores

    def rows(self, index: Index, rows: Sequence[int]) -> list[Mapping[str, Any]]:
        """Every column of some rows of results; an empty mapping for a row whose file is gone."""
        by_row: dict[int, Mapping[str, Any]] = {}
        for name, in_store, few in self._by_store(index, rows):
            by_row |= zip(few, self._stores[name].cells.rows(in_store, list(few.values())), strict=True)
        return [by_row[row] for row in rows]

    def examples(self, index: Index, rows: Sequence[int]) -> dict[str, list[Example]]:
        """The adversarial images of the cells of some rows, by cell."""
        return {
            cell: [dataclasses.replace(example, store=name) for example in examples]
            for name, in_store, few in self._by_store(index, rows)
            for cell, examples in self._stores[name].cells.examples(in_store, list(few.values())).items()
        }

    def reach(self, index: Index, rows: Sequence[int]) -> dict[str, dict[int, float]]:
        """The largest change of a pixel by image, for the cells of some rows, by cell."""
        return {
            cell: reach
            for name, in_store, few in self._by_store(index, rows)
            for cell, reach in self._stores[name].cells.reach(in_store, list(few.values())).items()
        }

    def measured(self, index: Index, rows: Sequence[int]) -> dict[str, dict[str, NDArray[np.float64]]]:
        """What was measured of each image, for the cells of some rows, by cell: see `StoredCells.measured`."""
        return {
            cell: columns
            for name, in_store, few in self._by_store(index, rows)
            for cell, columns in self._stores[name].cells.measured(in_store, list(few.values())).items()
        }

    def _by_store(self, index: Index, rows: Sequence[int]) -> Iterator[tuple[str, Index, dict[int, int]]]:
        """The name of each store with its index, and the rows from it with their rows in that index."""
        assert isinstance(index, JoinedIndex), _SEVERAL
        for name, few in index.by_store(rows).items():
            yield name, index.index_of[name], few


def _path(uri: str, file: str) -> str:
    return f"{uri}/results/{file}.parquet"


def _differing(uris: Mapping[str, str], index_of: Mapping[str, Index], advice: str) -> tuple[list[str], pa.Array]:
    """The cells with different values in two stores, and a sentence for each pair of files that have such cells.

    Each sentence ends with the `advice`.
    """
    differing: list[pa.Array] = []
    pairs: list[Difference] = []
    for (one, first), (other, second) in itertools.combinations(index_of.items(), 2):
        cells = second.counting
        cells = pc.unique(cells.filter(pc.is_in(cells, value_set=first.counting)))
        if not len(cells):
            continue
        rows, other_rows = first.rows_of(cells), second.rows_of(cells)
        unlike = different(first, rows, second, other_rows)
        differing.append(cells.filter(pa.array(unlike)))
        for position in np.flatnonzero(unlike).tolist():
            sides = ((one, first, int(rows[position])), (other, second, int(other_rows[position])))
            paths = [_path(uris[store], index.files[index.file_of_row[row]]) for store, index, row in sides]
            values = [float(index.numbers("value", [row])[0]) for _, index, row in sides]
            pairs.append((paths[0], paths[1], cells[position].as_py(), values[0], values[1]))
    return sentences(pairs, advice), pa.concat_arrays(differing) if differing else pa.nulls(0, pa.string())

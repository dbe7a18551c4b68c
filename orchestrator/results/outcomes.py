"""Outcomes of cells by image: read when they are needed, and kept as far as memory allows.

A sweep writes a file of outcomes for each file of results, under the same name. Where small files were merged, the
outcomes of a cell are in files with other names.
"""

from __future__ import annotations

import dataclasses
import itertools
import threading
from collections.abc import Iterable, Iterator, Mapping
from typing import Protocol

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from orchestrator.results.index import Index
from orchestrator.results.kept_outcomes import FileOutcomes, KeptOutcomes
from orchestrator.results.outcome_file import ImageLists, OutcomeTable, joined, outcome_table
from orchestrator.store import merged, tables
from orchestrator.store.arrays import flags
from orchestrator.store.filerows import FileRows
from orchestrator.store.folder import BYTES_AT_ONCE, Folder
from orchestrator.store.store import Store
from orchestrator.store.tally import Expected, expected, misfit, missing, places, sound_files
from orchestrator.store.trusted import sharing

_COLUMNS = ("cell", "image", "robust", "ap", "linf", "zero_grad")


@dataclasses.dataclass(frozen=True, slots=True)
class CellOutcomes:
    """The outcomes of one cell, sorted by image."""

    images: NDArray[np.int32]
    #: 1 for a robust image and 0 for one that is not, or the average precision of a query.
    scores: NDArray[np.uint8] | NDArray[np.float32]
    #: Whether the loss had no gradient at the clean image; None where that was not recorded.
    zero: NDArray[np.bool_] | None


class OutcomeReader(Protocol):
    """What curves and checks need: the outcomes of the files of an index."""

    images: ImageLists

    def by_file(self, index: Index, file_numbers: Iterable[int]) -> Mapping[int, FileOutcomes]:
        """The outcomes of files of results, by the number of the file in the index."""


class Outcomes:
    """The outcomes of a store."""

    def __init__(self, store: Store, images: ImageLists | None = None) -> None:
        self.folder = Folder(store, "outcomes", tables.OUTCOMES, _COLUMNS)
        self.images = ImageLists() if images is None else images
        self._complete = KeptOutcomes()
        #: Files with cells that have no outcomes yet.
        self._partial: dict[str, FileOutcomes] = {}
        #: Outcome files that results of other names may share, as far as they were read.
        self._shared: dict[str, OutcomeTable] = {}
        #: The cells without outcomes of each file of results that has any, and the files that contradict theirs.
        self.lost: dict[str, pa.Array] = {}
        self.wrong: set[str] = set()
        self._lock = threading.Lock()

    @property
    def full(self) -> bool:
        """Whether reading more would drop outcomes that are kept."""
        return self._complete.full

    def forget_partial(self) -> None:
        """Look for missing outcomes once more, since the store has changed."""
        with self._lock:
            self._partial = {}

    def batches(self, index: Index, most: int = BYTES_AT_ONCE) -> Iterator[range]:
        """The numbers of the index's files in batches whose outcomes can be read together: see `Folder.batches`."""
        first = 0
        for batch in self.folder.batches(index.files, most):
            yield range(first, first + len(batch))
            first += len(batch)

    def by_file(self, index: Index, file_numbers: Iterable[int]) -> Mapping[int, FileOutcomes]:
        """The outcomes of files of results, by the number of the file in the index."""
        names = {number: index.files[number] for number in file_numbers}
        outcomes: dict[int, FileOutcomes] = {}
        with self._lock:
            for number, name in names.items():
                known = self._complete.get(name) or self._partial.get(name)
                if known is not None:
                    outcomes[number] = known
            missing = {name: index.expected(number) for number, name in names.items() if number not in outcomes}
            if missing:
                read = self._read(missing, set(index.files))
                outcomes |= {number: read[name] for number, name in names.items() if name in read}
        return outcomes

    def read_merged(self, index: Index) -> None:
        """Read the merged files, those not named like a file of results, so that broken ones are reported."""
        with self._lock:
            existing = set(self.folder.names())
            self._shared_tables(existing - set(index.files), existing)

    def read_anew(self, results: Mapping[str, pa.Table], known: set[str]) -> None:
        """Read the outcomes of these results once more: missing or wrong ones may have been recomputed."""
        with self._lock:
            self._read({name: expected(table) for name, table in results.items()}, known)

    def _read(self, expected_of: Mapping[str, Expected], known: set[str]) -> dict[str, FileOutcomes]:
        names = list(expected_of)
        read_now: dict[str, FileOutcomes] = {}
        for name in names:
            self._partial.pop(name, None)
            self.lost.pop(name, None)
            self.wrong.discard(name)
        for batch in self.folder.batches(names):
            read = self.folder.read(batch)
            sound = self._sound_together(read.only(read.small()), expected_of)
            read_now |= sound
            for name in [name for name in batch if name not in sound]:
                table = outcome_table(read[name], self.images) if name in read else joined([])
                read_now[name] = self._checked(
                    name, _file_outcomes(table, expected_of[name][0]), expected_of[name], same_name=True
                )
        lacking = [name for name in names if not read_now[name].complete and name not in self.wrong]
        existing = set(self.folder.names()) if lacking else set()
        if shared_tables := self._shared_tables(sharing(existing, known), existing):
            # Joined once for all files that lack outcomes.
            together = joined(shared_tables)
            for name in lacking:
                own_table, cells = read_now[name].table, expected_of[name][0]
                both = joined([own_table, together]) if len(own_table.cells) else together
                read_now[name] = self._checked(name, _file_outcomes(both, cells), expected_of[name], same_name=False)
        for name, file_outcomes in read_now.items():
            if file_outcomes.complete:
                self._complete.keep(name, file_outcomes)
            else:
                self._lose(name, file_outcomes, expected_of[name][0])
                self._partial[name] = file_outcomes
        return read_now

    def _sound_together(self, read: FileRows, expected_of: Mapping[str, Expected]) -> dict[str, FileOutcomes]:
        """The outcomes of those of some small files that are all that their results need, in one table."""
        if len(read) < 2:
            return {}
        cells, n, values = zip(*(expected_of[name] for name in read), strict=True)
        results = pa.concat_arrays(cells), np.concatenate(n), np.concatenate(values)
        outcomes, sizes = read.together(_COLUMNS), [*map(len, cells)]
        outcome_sizes = [*read.lengths.values()]
        sound = sound_files(results, sizes, outcomes, outcome_sizes)
        if not sound.all():
            outcomes = outcomes.filter(flags(np.repeat(sound, outcome_sizes)))
        table = outcome_table(outcomes, self.images)
        positions = np.split(places(results[0], table.cells), np.cumsum(sizes)[:-1])
        few = itertools.compress(zip(read, positions, strict=True), sound.tolist())
        return {name: FileOutcomes(table, places_of_file) for name, places_of_file in few}

    def _checked(self, name: str, file_outcomes: FileOutcomes, results: Expected, same_name: bool) -> FileOutcomes:
        """The outcomes of a file, or none where they contradict the results."""
        if not len(file_outcomes.table.cells) or not (
            reason := misfit(results, file_outcomes.positions, file_outcomes.table.tally, same_name)
        ):
            return file_outcomes
        self.folder.skip(name, reason)
        self.wrong.add(name)
        return FileOutcomes(joined([]), np.full(len(file_outcomes.positions), -1))

    def _lose(self, name: str, file_outcomes: FileOutcomes, cells: pa.Array) -> None:
        self.lost[name] = cells.filter(pa.array(file_outcomes.positions < 0))
        if name not in self.folder.broken:
            self.folder.skip(name, missing(int((file_outcomes.positions < 0).sum()), len(file_outcomes.positions)))

    def _shared_tables(self, names: set[str], existing: set[str]) -> list[OutcomeTable]:
        # A file of outcomes that was listed before its file of results is shared no more.
        shared = names | {name for name in existing if merged.is_merged(name)}
        self._shared = {name: table for name, table in self._shared.items() if name in shared}
        new = sorted(names - set(self._shared))
        for batch in self.folder.batches(new):
            for name, table in self.folder.read(batch).items():
                self._shared[name] = outcome_table(table, self.images)
        return [self._shared[name] for name in sorted(names) if name in self._shared]


def _file_outcomes(table: OutcomeTable, cells: pa.Array) -> FileOutcomes:
    return FileOutcomes(table, places(cells, table.cells))

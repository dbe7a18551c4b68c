"""A store that pages read while sweeps write to it: the index is replaced when results come, curves are kept."""

from __future__ import annotations

import threading
from collections.abc import Sequence, Set

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results import members
from orchestrator.results.alignment import Alignment
from orchestrator.results.examples import Example
from orchestrator.results.histories import Histories
from orchestrator.results.index import Index
from orchestrator.results.outcome_file import ImageLists
from orchestrator.results.outcomes import Outcomes
from orchestrator.results.result_files import results_of
from orchestrator.results.runs import Run, runs_of
from orchestrator.results.snapshot import Snapshot
from orchestrator.results.status import Status, StatusReader
from orchestrator.results.stored_cells import StoredCells
from orchestrator.store import tables
from orchestrator.store.filerows import FileRows, ReadFiles
from orchestrator.store.folder import Folder
from orchestrator.store.notes import Note, Notes
from orchestrator.store.progress import Progress, silent
from orchestrator.store.store import Store, first_of_each_cell


class LiveStore:
    """A store that may be written to while its results are shown.

    With `at_once` the planned cells and the ranks of user-defined members are left to `precompute.follow`, which reads
    them in the background. Otherwise both are known from the beginning. `results` are those that were read already;
    `images` are the lists of images of stores that are shown together.
    """

    #: The names of the stores that can be chosen from: none, since there is one.
    names: Sequence[str] = ()

    def __init__(
        self,
        storage: str,
        at_once: bool = False,
        results: ReadFiles | None = None,
        images: ImageLists | None = None,
        progress: Progress = silent,
    ) -> None:
        self.store = Store(storage)
        self._results = results_of(self.store)
        self._read_before = FileRows() if results is None else self._results.take(results)
        self.uri, self.uris = self.store.uri, [self.store.uri]
        self.outcomes = Outcomes(self.store, images)
        self._rows = FileRows()
        #: Those in the index.
        self.indexed = FileRows()
        #: The files of results that contradict their outcomes; they are not in the index.
        self._excluded: set[str] = set()
        self._lock = threading.Lock()
        #: What is stored of single cells besides the index.
        self.cells = StoredCells(self.store)
        #: The alignment of the trainings, and their epochs.
        self.alignment, self.histories = Alignment(self.store), Histories(self.store)
        self._status_reader = StatusReader(self.store)
        self._notes = Notes(self.store)
        self._planning = threading.Lock()
        #: The threads that answer a request, and when the last answer was finished, by the monotonic clock.
        self.answering: set[int] = set()
        self.last_request = 0.0
        #: Why user-defined members cannot be imported.
        self._unknown_members: dict[str, str] = {}
        self.snapshot = Snapshot(Index(FileRows()), self.outcomes)
        #: Planned cells without results.
        self.status = Status()
        #: Number of planned cells that have a result, and the state of the store for which it was counted.
        self._done: tuple[object, int] = (None, 0)
        self.refresh()
        if not at_once:
            self.check(progress)
            self.learn()
            self.planned()

    def refresh(self) -> bool:
        """Read the results that were added since the last call; whether there were any."""
        if not self._lock.acquire(blocking=False):
            # Another request is reading; the next call returns its results.
            return False
        try:
            self._renew_status()
            self._notes.refresh()
            # Missing or contradicting outcomes may have been recomputed.
            suspects = self.outcomes.wrong | set(self.outcomes.lost)
            before = set(self.outcomes.lost)
            names, new = self._read_new(suspects)
            self.outcomes.read_anew({name: new[name] for name in suspects if name in new}, set(names))
            gone = set(self._rows) - set(names)
            same = self._excluded == self.outcomes.wrong and before == set(self.outcomes.lost)
            if same and not gone and not new.keys() - suspects:
                return False
            rows = self._rows | new
            self._rows = rows.only([name for name in rows if name not in gone])
            self.outcomes.forget_partial()
            self._index()
            self.outcomes.read_merged(self.snapshot.index)
            return True
        finally:
            self._lock.release()

    def _read_new(self, suspects: set[str]) -> tuple[list[str], FileRows]:
        """The names of the files of results, and the tables of those that are new or suspect."""
        new, self._read_before = self._read_before, FileRows()
        for names in self._results.listings():
            unread = [name for name in names if name not in new and (name not in self._rows or name in suspects)]
            new = new | self._results.read(unread)
        present = set(names)
        return names, new.only([name for name in new if name in present])

    def check(self, progress: Progress = silent) -> None:
        """Read the outcomes of all results, so that contradicting results are excluded and damage is reported."""
        index = self.snapshot.index
        for numbers in self.outcomes.batches(index):
            self.outcomes.by_file(index, numbers)
            progress("files of outcomes read", numbers.stop, len(index.files))
        if self.outcomes.wrong:
            with self._lock:
                self._index()

    @property
    def done(self) -> int:
        """How many planned cells have a result with its outcomes, as far as outcomes were read."""
        status, lost = self.status, list(self.outcomes.lost.values())
        counted = (self.snapshot.version, tuple(status.grids), sum(map(len, lost)))
        if self._done[0] != counted:
            self._done = counted, pc.sum(self.has(pa.array(list(status.cells), pa.string()))).as_py() or 0
        return self._done[1]

    def has(self, cells: pa.Array) -> pa.Array:
        """Whether each cell has a result with its outcomes, as far as outcomes were read."""
        known, lost = pc.is_in(cells, value_set=self.snapshot.index.cells), list(self.outcomes.lost.values())
        return pc.and_not(known, pc.is_in(cells, value_set=pa.concat_arrays(lost))) if lost else known

    def planned(self) -> Status:
        """The status with the planned cells of every grid."""
        with self._planning:
            if not self.status.planned:
                self._status_reader.plan()
                self._renew_status()
            return self.status

    def _renew_status(self) -> None:
        self.status = self._status_reader.status()

    def _index(self) -> None:
        self._excluded = set(self.outcomes.wrong)
        self.indexed = self._rows.only([name for name in self._rows if name not in self._excluded])
        self.snapshot = Snapshot(Index(self.indexed), self.outcomes, self.snapshot.version + 1)

    def chosen(self, _stores: Sequence[str], _apart: bool = False) -> Snapshot:
        """The results of some of the stores: of this one."""
        return self.snapshot

    def store_of(self, _index: Index, _row: int) -> str:
        """The name of the store that a row is from; "" where there is one."""
        return ""

    def learn(self) -> None:
        """Read the registries where the index has names that do not ship with signsym."""
        if self.snapshot.index.known:
            return
        try:
            if not members.learn():
                return
        except ValueError as error:
            self._unknown_members["SIGNSYM_EXTENSIONS"] = str(error)
        with self._lock:
            self._index()

    @property
    def notes(self) -> list[tuple[str, Note]]:
        """The notes of people, each with the name of its store, which is "" where there is one; the oldest first."""
        return [("", note) for note in self._notes.all]

    @property
    def skipped(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""
        files = {**self._results.skipped, **self.outcomes.folder.skipped, **self.alignment.skipped}
        files |= {**self.histories.skipped, **self.status.skipped, **self._notes.skipped}
        return {**files, **self._unknown_members}

    def all_results(self, *columns: str) -> pa.Table:
        """Some columns of all results."""
        folder = Folder(self.store, "results", tables.RESULTS, columns)
        schema = pa.schema([tables.RESULTS.field(name) for name in columns])
        for _ in folder.listings():
            read = folder.read(self.snapshot.index.files)
            if folder.vanished:
                self.refresh()
        return read.together(columns).cast(schema) if read else schema.empty_table()

    def trusted_results(self, columns: Sequence[str]) -> pa.Table:
        """`Store.result_table` after `check`, which has read the outcomes: none is read again."""
        needed = list(dict.fromkeys([*columns, "cell", "finished_at"]))
        schema = pa.schema([tables.RESULTS.field(name) for name in needed])
        folder = Folder(self.store, "results", tables.RESULTS, needed, plain=needed)
        for _ in folder.listings():
            read = folder.read(self.snapshot.index.files)
            if folder.vanished:
                self.refresh()
                self.check()
        for name, reason in folder.broken.items():
            self._results.skip(name, reason)
        kept, lost = [schema.empty_table()], self.outcomes.lost
        for name, table in read.items():
            known = table.select(needed)
            kept.append(
                known.filter(pc.invert(pc.is_in(known["cell"], value_set=lost[name]))) if name in lost else known
            )
        return first_of_each_cell(pa.concat_tables(kept).cast(schema)).select(columns)

    def rerun_grid(self, cell: str) -> str | None:
        """The grid that reruns a cell; None where no readable stored grid has the cell."""
        planned = self.status.origin(cell)
        return None if planned is None else self._status_reader.rerun_grid(planned, cell)

    def runs(self, _stores: Sequence[str]) -> dict[str, list[Run]]:
        """The jobs of its sweeps, by the name of the store, which is "" where there is one."""
        return {"": runs_of(self.store)}

    def retry_commands(self, failed: Set[str]) -> list[str]:
        """The commands that try failed jobs again: see `StatusReader`."""
        self.planned()
        return self._status_reader.retry_commands(failed)

    def examples(self, cell: str, _store: str = "") -> Sequence[Example]:
        """The adversarial images of a cell."""
        index = self.snapshot.index
        row = index.row_of(cell)
        return () if row is None else self.cells.examples(index, [row]).get(cell, ())

"""A store as the explorer sees it: an index that is replaced when results come, and curves that are computed once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results import members
from orchestrator.results.evidence import Models
from orchestrator.results.examples import Example
from orchestrator.results.flags import Flags
from orchestrator.results.index import COLUMNS, Index
from orchestrator.results.outcomes import Outcomes
from orchestrator.results.query import Query
from orchestrator.results.status import Status, Survey
from orchestrator.store import merged, tables
from orchestrator.store.arrays import single
from orchestrator.store.folder import AT_ONCE, Folder
from orchestrator.store.store import Store
from orchestrator.store.trusted import sharing

#: Curves are kept for so many choices of seeds.
KEPT = 4
K = TypeVar("K")
V = TypeVar("V")


class Snapshot:
    """The results of one moment."""

    def __init__(self, index: Index, outcomes: Outcomes, version: int = 0) -> None:
        self.index, self.outcomes, self.version = index, outcomes, version
        self._queries: dict[tuple[int, ...], Query] = {}
        self._flags: dict[frozenset[int], Flags] = {}
        self._models: dict[frozenset[int], Models] = {}

    def query(self, seeds: tuple[int, ...] = ()) -> Query:
        """The curves over these seeds; none stands for all."""
        return _kept(self._queries, seeds, lambda: Query(self.index, self.outcomes, seeds))

    def models(self, query: Query) -> Models:
        """The verdicts on a query's models, and the checks that they rest on."""
        return _kept(self._models, query.seeds, lambda: Models(query))

    def flags(self, query: Query) -> Flags:
        """The same checks by line."""
        return _kept(self._flags, query.seeds, lambda: Flags(self.models(query)))


def _kept(known: dict[K, V], key: K, make: Callable[[], V]) -> V:
    """What is known by a key, or is made for it now in the place of the oldest."""
    if key not in known:
        while len(known) >= KEPT:
            known.pop(next(iter(known)))
        known[key] = make()
    return known[key]


class Data:
    """A store that may be written to while it is looked at.

    Whoever wants pages at once lets `ahead.follow` find out the rest in the background: what grids ask for, and where
    members of one's own stand. Otherwise both are known from the beginning.
    """

    def __init__(self, storage: str, at_once: bool = False) -> None:
        # Arrow's own pool takes twice the time for many files where fresh memory is dear: 1.3 s, not 0.6, for a million
        # results.
        pa.set_memory_pool(pa.system_memory_pool())
        self.store = Store(storage)
        self._results = Folder(self.store, "results", tables.RESULTS, COLUMNS, plain={"cell"})
        self.outcomes = Outcomes(self.store)
        self._parts: dict[str, pa.Table] = {}
        #: The files of results that contradict their outcomes, which the index does without.
        self._excluded: set[str] = set()
        self._lock = threading.Lock()
        self._examples = Folder(self.store, "examples", tables.EXAMPLES, tables.EXAMPLES.names)
        self._reach = Folder(self.store, "outcomes", tables.OUTCOMES, ("cell", "image", "linf"))
        self._survey = Survey(self.store)
        self._planning = threading.Lock()
        #: When somebody asked for anything the last time, by the monotonic clock.
        self.asked = 0.0
        #: Why members of one's own cannot be had.
        self._wrong: dict[str, str] = {}
        self.snapshot = Snapshot(Index({}), self.outcomes)
        #: What was asked of the store and is not there.
        self.status = Status()
        #: How many cells that were asked for have a result, and what of the store that was counted on.
        self._done: tuple[object, int] = (None, 0)
        self.refresh()
        if not at_once:
            self.check()
            self.learn()
            self.planned()

    def refresh(self) -> bool:
        """Read the results that were added since the last time; whether there were any."""
        if not self._lock.acquire(blocking=False):
            # Another request reads already; what it finds is seen by the next one.
            return False
        try:
            self._renew_status()
            # What had no outcomes, or others than its own, may be computed again by now.
            suspects = self.outcomes.wrong | set(self.outcomes.lost)
            before = set(self.outcomes.lost)
            names, new = self._read_new(suspects)
            self.outcomes.look_again({name: new[name] for name in suspects if name in new}, set(names))
            gone = set(self._parts) - set(names)
            same = self._excluded == self.outcomes.wrong and before == set(self.outcomes.lost)
            if same and not gone and not new.keys() - suspects:
                return False
            self._parts = {name: part for name, part in (self._parts | new).items() if name not in gone}
            self.outcomes.forget_partial()
            self._index()
            self.outcomes.read_others(self.snapshot.index)
            return True
        finally:
            self._lock.release()

    def _read_new(self, suspects: set[str]) -> tuple[list[str], dict[str, pa.Table]]:
        """The names of the files of results, and the tables of those that are not known, or that are suspect."""
        new: dict[str, pa.Table] = {}
        for _ in range(merged.LOOKS):
            names = self._results.names()
            self._results.vanished.clear()
            unread = [name for name in names if name not in new and (name not in self._parts or name in suspects)]
            new |= self._results.read(unread)
            if not self._results.vanished:
                # Otherwise files were merged between the listing and the reading: they are there in another form.
                break
        return names, {name: table for name, table in new.items() if name in set(names)}

    def check(self) -> None:
        """Read the outcomes of all results, so that pages show none that contradicts them and damage is named."""
        index = self.snapshot.index
        for start in range(0, len(index.parts), AT_ONCE):
            self.outcomes.blocks(index, range(start, min(start + AT_ONCE, len(index.parts))))
        if self.outcomes.wrong:
            with self._lock:
                self._index()

    @property
    def done(self) -> int:
        """How many of the cells that grids ask for have a result with its outcomes, as far as these were read."""
        index, status, lost = self.snapshot.index, self.status, list(self.outcomes.lost.values())
        counted = (self.snapshot.version, tuple(status.grids), sum(map(len, lost)))
        if self._done[0] != counted:
            asked = pa.array(list(status.cells), pa.string())
            done = pc.is_in(asked, value_set=index.cells)
            if lost:
                done = pc.and_not(done, pc.is_in(asked, value_set=pa.concat_arrays(lost)))
            self._done = counted, pc.sum(done).as_py() or 0
        return self._done[1]

    def planned(self) -> Status:
        """The status with what every grid asks for."""
        with self._planning:
            if not self.status.planned:
                self._survey.plan()
                self._renew_status()
            return self.status

    def _renew_status(self) -> None:
        self.status = self._survey.status()

    def _index(self) -> None:
        self._excluded = set(self.outcomes.wrong)
        parts = {name: part for name, part in self._parts.items() if name not in self._excluded}
        self.snapshot = Snapshot(Index(parts), self.outcomes, self.snapshot.version + 1)

    def learn(self) -> None:
        """Ask the registries where the index has names that they alone may know."""
        if self.snapshot.index.known:
            return
        try:
            members.learn()
        except ValueError as error:
            self._wrong["SIGNSYM_EXTENSIONS"] = str(error)
        with self._lock:
            self._index()

    @property
    def skipped(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""
        return {**self._results.skipped, **self.outcomes.folder.skipped, **self.status.skipped, **self._wrong}

    def rows(self, index: Index, rows: Sequence[int]) -> list[Mapping[str, Any]]:
        """Every column of some rows of results; nothing of those whose file is gone."""
        chosen = np.array(rows, dtype=np.int64)
        names, places = [index.parts[part] for part in index.part[chosen].tolist()], index.place(chosen).tolist()
        folder = Folder(self.store, "results", tables.RESULTS, tables.RESULTS.names)
        whole = folder.read(list(dict.fromkeys(names)))
        found = [
            whole[name].slice(place, 1).to_pylist()[0] if name in whole else {}
            for name, place in zip(names, places, strict=True)
        ]
        if folder.vanished:
            # Merged since the index was made.
            cells = [str(index.value("cell", row)) for row in rows]
            files = folder.read(set(folder.names()) - set(index.parts)).values()
            moved = [table.filter(pc.is_in(table["cell"].cast(pa.string()), pa.array(cells))) for table in files]
            by_cell = {row["cell"]: row for table in moved for row in table.to_pylist()}
            found = [row or by_cell.get(cell, {}) for row, cell in zip(found, cells, strict=True)]
        return found

    def whole(self, *columns: str) -> pa.Table:
        """Some columns of all results."""
        folder = Folder(self.store, "results", tables.RESULTS, columns)
        schema = pa.schema([tables.RESULTS.field(name) for name in columns])
        for _ in range(merged.LOOKS):
            folder.vanished.clear()
            parts = folder.read(self.snapshot.index.parts).values()
            if not folder.vanished:
                break
            self.refresh()
        return pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()

    def examples(self, index: Index, rows: Sequence[int]) -> dict[str, list[Example]]:
        """The adversarial images of the cells of some rows, by cell."""
        found = self._of_cells(self._examples, index, rows)
        return {cell: [Example(**row) for row in each] for cell, each in found.items()}

    def reach(self, index: Index, rows: Sequence[int]) -> dict[str, dict[int, float]]:
        """The largest change of a pixel by image, for the cells of some rows, by cell."""
        found = self._of_cells(self._reach, index, rows)
        return {cell: {row["image"]: row["linf"] for row in each} for cell, each in found.items()}

    def again(self, cell: str) -> str | None:
        """The grid that runs a cell again; None where no stored grid that can be read has it."""
        asked = self.status.origin(cell)
        return None if asked is None else self._survey.again(asked, cell)

    def example(self, cell: str, image: int) -> Example | None:
        """One adversarial image of a cell."""
        index = self.snapshot.index
        row = index.row_of(cell)
        found = {} if row is None else self.examples(index, [row])
        return next((each for each in found.get(cell, ()) if each.image == image), None)

    def _of_cells(self, folder: Folder, index: Index, rows: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
        """What a folder has on the cells of some rows: in files named like those of their results or like their jobs,
        or else in all files that results of other names may share.
        """
        named = {row: (index.parts[index.part[row]], str(index.value("job", row))) for row in rows}
        cells = pa.array([str(index.value("cell", row)) for row in rows])
        found: dict[str, list[dict[str, Any]]] = {}
        for _ in range(merged.LOOKS):
            there = set(folder.names())
            wanted = there & {name for names in named.values() for name in names}
            if any(there.isdisjoint(names) for names in named.values()):
                wanted |= sharing(there, {*index.parts, *index.jobs})
            folder.vanished.clear()
            found.clear()
            for table in folder.read(sorted(wanted)).values():
                column = single(table["cell"])
                # By the numbers of the keys: the keys themselves come once for every image.
                codes = pc.index_in(cells, value_set=column.dictionary).drop_null().cast(column.indices.type)
                for row in table.filter(pc.is_in(column.indices, value_set=codes)).to_pylist():
                    found.setdefault(row["cell"], []).append(row)
            if not folder.vanished:
                break
        return {
            cell: list({row["image"]: row for row in reversed(many)}.values())[::-1] for cell, many in found.items()
        }

"""A store as the explorer sees it: an index that is replaced when results come, and curves that are computed once."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator import tables
from orchestrator.explorer import members
from orchestrator.explorer.examples import Example
from orchestrator.explorer.flags import Flags
from orchestrator.explorer.index import COLUMNS, Index
from orchestrator.explorer.judged import Judged
from orchestrator.explorer.outcomes import Outcomes
from orchestrator.explorer.query import Query
from orchestrator.explorer.reading import Folder
from orchestrator.explorer.status import Status, Survey
from orchestrator.store import Store

#: Curves are kept for so many choices of seeds.
KEPT = 4


class Snapshot:
    """The results of one moment."""

    def __init__(self, index: Index, outcomes: Outcomes, version: int = 0) -> None:
        self.index, self.outcomes, self.version = index, outcomes, version
        self._queries: dict[tuple[int, ...], Query] = {}
        self._flags: dict[frozenset[int], Flags] = {}
        self._judged: dict[frozenset[int], Judged] = {}

    def query(self, seeds: tuple[int, ...] = ()) -> Query:
        """The curves over these seeds; none stands for all."""
        if seeds not in self._queries:
            while len(self._queries) >= KEPT:
                self._queries.pop(next(iter(self._queries)))
            self._queries[seeds] = Query(self.index, self.outcomes, seeds)
        return self._queries[seeds]

    def flags(self, query: Query) -> Flags:
        """The checks of masking on a query's curves."""
        if query.seeds not in self._flags:
            while len(self._flags) >= KEPT:
                self._flags.pop(next(iter(self._flags)))
            self._flags[query.seeds] = Flags(query)
        return self._flags[query.seeds]

    def judged(self, query: Query) -> Judged:
        """The verdicts on a query's models."""
        if query.seeds not in self._judged:
            while len(self._judged) >= KEPT:
                self._judged.pop(next(iter(self._judged)))
            self._judged[query.seeds] = Judged(query)
        return self._judged[query.seeds]


class Data:
    """A store that may be written to while it is looked at.

    Whoever wants pages at once lets `follow` find out the rest in the background: what grids ask for, and where members
    of one's own stand. Otherwise both are known from the beginning.
    """

    def __init__(self, storage: str, at_once: bool = False) -> None:
        # Arrow's own pool takes twice the time for many files where fresh memory is dear: 1.3 s, not 0.6, for a million
        # results.
        pa.set_memory_pool(pa.system_memory_pool())
        self.store = Store(storage)
        self._results = Folder(self.store, "results", tables.RESULTS, COLUMNS, plain={"cell"})
        self._outcomes = Outcomes(self.store)
        self._parts: dict[str, pa.Table] = {}
        self._lock = threading.Lock()
        self._examples = Folder(self.store, "examples", tables.EXAMPLES, tables.EXAMPLES.names)
        self._reach = Folder(self.store, "outcomes", tables.OUTCOMES, ("cell", "image", "linf"))
        self._survey = Survey(self.store)
        self._planning = threading.Lock()
        #: Why members of one's own cannot be had.
        self._wrong: dict[str, str] = {}
        self.snapshot = Snapshot(Index({}), self._outcomes)
        #: What was asked of the store and is not there.
        self.status = Status()
        self.refresh()
        if not at_once:
            self._learn()
            self.planned()

    def refresh(self) -> bool:
        """Read the results that were added since the last time; whether there were any."""
        if not self._lock.acquire(blocking=False):
            # Another request reads already; what it finds is seen by the next one.
            return False
        try:
            self._renew_status()
            names = self._results.names()
            new = self._results.read([name for name in names if name not in self._parts])
            gone = set(self._parts) - set(names)
            if not new and not gone:
                return False
            self._parts = {name: part for name, part in (self._parts | new).items() if name not in gone}
            self._outcomes.forget_partial()
            self._index()
            self._outcomes.read_others(self.snapshot.index)
            return True
        finally:
            self._lock.release()

    def planned(self) -> Status:
        """The status with what every grid asks for."""
        with self._planning:
            if not self.status.planned:
                self._survey.plan()
                self._renew_status()
            return self.status

    def follow(self) -> None:
        """Find out the rest, and read outcomes ahead, as far as they are kept; in a thread of its own."""
        self.planned()
        self._learn()
        index = self.snapshot.index
        for first in range(0, len(index.parts), 16):
            if self._outcomes.full:
                break
            self._outcomes.blocks(index, range(first, min(first + 16, len(index.parts))))

    def _renew_status(self) -> None:
        self.status = self._survey.status()

    def _index(self) -> None:
        self.snapshot = Snapshot(Index(self._parts), self._outcomes, self.snapshot.version + 1)

    def _learn(self) -> None:
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
        return {**self._results.skipped, **self._outcomes.folder.skipped, **self.status.skipped, **self._wrong}

    def row(self, index: Index, row: int) -> Mapping[str, Any]:
        """Every column of a row of results."""
        part, place = index.parts[int(index.part[row])], int(index.place(np.array([row]))[0])
        whole = Folder(self.store, "results", tables.RESULTS, tables.RESULTS.names).read([part])
        found: Mapping[str, Any] = whole[part].slice(place, 1).to_pylist()[0] if part in whole else {}
        return found

    def whole(self, *columns: str) -> pa.Table:
        """Some columns of all results."""
        folder = Folder(self.store, "results", tables.RESULTS, columns)
        schema = pa.schema([tables.RESULTS.field(name) for name in columns])
        parts = folder.read(self.snapshot.index.parts).values()
        return pa.concat_tables([part.cast(schema) for part in parts]) if parts else schema.empty_table()

    def examples(self, cell: str) -> list[Example]:
        """The adversarial images of a cell."""
        rows = self._rows(self._examples, cell)
        return [Example(**row) for row in rows if row["cell"] == cell]

    def reach(self, cell: str) -> dict[int, float]:
        """The largest change of a pixel by image."""
        return {row["image"]: row["linf"] for row in self._rows(self._reach, cell) if row["cell"] == cell}

    def again(self, cell: str) -> str | None:
        """The grid that runs a cell again; None where no stored grid that can be read has it."""
        asked = self.status.origin(cell)
        return None if asked is None else self._survey.again(asked, cell)

    def _rows(self, folder: Folder, cell: str) -> list[dict[str, Any]]:
        """The rows of the cell's file, or where small files were merged, of all files that are no results'."""
        index = self.snapshot.index
        row = index.row_of(cell)
        if row is None:
            return []
        part, names = index.parts[int(index.part[row])], folder.names()
        wanted = [part] if part in names else [name for name in names if name not in self._parts]
        found: list[dict[str, Any]] = []
        for table in folder.read(wanted).values():
            found += table.filter(pc.equal(table["cell"].cast(pa.string()), cell)).to_pylist()
        return found

    def example(self, cell: str, image: int) -> Example | None:
        """One adversarial image of a cell."""
        return next((example for example in self.examples(cell) if example.image == image), None)

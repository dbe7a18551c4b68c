"""Several stores looked at together while sweeps write to them."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable, Iterable, Sequence, Set
from pathlib import PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.alignment import JoinedAlignment
from orchestrator.results.examples import Example
from orchestrator.results.histories import JoinedHistories
from orchestrator.results.index import Index
from orchestrator.results.joined import JoinedCells, JoinedIndex, JoinedOutcomes
from orchestrator.results.live_store import LiveStore
from orchestrator.results.outcome_file import ImageLists
from orchestrator.results.runs import Run
from orchestrator.results.snapshot import Snapshot
from orchestrator.results.status import Status, together
from orchestrator.store.filerows import ReadFiles
from orchestrator.store.notes import Note
from orchestrator.store.progress import Progress, silent


def opened(
    storages: Sequence[str],
    at_once: bool = False,
    results: Sequence[Callable[[], ReadFiles | None]] = (),
    progress: Progress = silent,
) -> LiveStore | LiveStores:
    """One store, or several together; `results` return those that were read already, see `LiveStore`.

    Raises ValueError for a store that is named twice, and for stores that use other images under one name.
    """
    read = [get() for get in results] or [None] * len(storages)
    if len(storages) == 1:
        return LiveStore(storages[0], at_once, read[0], progress=progress)
    images = ImageLists()
    stores = [LiveStore(storage, True, few, images) for storage, few in zip(storages, read, strict=True)]
    return LiveStores(stores, images, at_once, progress)


class LiveStores:
    """Several stores: what `LiveStore` is for one."""

    def __init__(
        self, stores: Sequence[LiveStore], images: ImageLists, at_once: bool = False, progress: Progress = silent
    ) -> None:
        uris = [store.uri for store in stores]
        if twice := [uri for uri in dict.fromkeys(uris) if uris.count(uri) > 1]:
            raise ValueError(f"{twice[0]} is named twice; name each store once")
        self._stores = dict(zip(_names(uris), stores, strict=True))
        if problems := _other_images(stores):
            raise ValueError(f"{problems[0]} Look at one of these stores at a time.")
        #: The names of the stores that can be chosen from.
        self.names: Sequence[str] = tuple(self._stores)
        self.uris, self.uri = uris, ", ".join(uris)
        self.outcomes = JoinedOutcomes(self._stores, images)
        #: What is stored of single cells besides the index.
        self.cells = JoinedCells(self._stores)
        #: The alignment of the trainings, and their epochs.
        self.alignment = JoinedAlignment([store.alignment for store in stores])
        self.histories = JoinedHistories([store.histories for store in stores])
        #: The threads that answer a request, and when the last answer was finished, by the monotonic clock.
        self.answering: set[int] = set()
        self.last_request = 0.0
        self._lock = threading.Lock()
        self._status: tuple[list[Status], Status] = [], Status()
        self._done: tuple[object, int] = None, 0
        self._join(version=1)
        if not at_once:
            self.check(progress)
            self.learn()
            self.planned()

    def _join(self, version: int) -> None:
        self._index = JoinedIndex(self._stores)
        problems = [*_other_images(self._stores.values()), *self._index.problems]
        self.snapshot = Snapshot(self._index, self.outcomes, version, problems)
        #: The results of some of the stores, by their names and whether each is apart.
        self._chosen: dict[tuple[frozenset[str], bool], Snapshot] = {}

    def _renew(self) -> bool:
        """Join the stores again where one of them has other results than before; whether one has."""
        changed = any(store.snapshot.index is not self._index.index_of[name] for name, store in self._stores.items())
        if changed:
            self._join(self.snapshot.version + 1)
        return changed

    def chosen(self, names: Sequence[str], apart: bool = False) -> Snapshot:
        """The results of some of the stores, of each `apart` or of all as one; no name stands for all."""
        some = frozenset(names) & frozenset(self.names) or frozenset(self.names)
        if len(some) == len(self.names) and not apart:
            return self.snapshot
        with self._lock:
            if (some, apart) not in self._chosen:
                index = JoinedIndex({name: store for name, store in self._stores.items() if name in some}, apart)
                self._chosen[some, apart] = Snapshot(index, self.outcomes, self.snapshot.version, index.problems)
            return self._chosen[some, apart]

    def refresh(self) -> bool:
        """Read the results that were added since the last call; whether there were any."""
        if not self._lock.acquire(blocking=False):
            # Another request is reading; the next call returns its results.
            return False
        try:
            for store in self._stores.values():
                store.refresh()
            return self._renew()
        finally:
            self._lock.release()

    def check(self, progress: Progress = silent) -> None:
        """Read the outcomes of all results, so that contradicting results are excluded and damage is reported."""
        self._with_all(lambda store: store.check(progress))

    def learn(self) -> None:
        """Read the registries where the index has names that do not ship with signsym."""
        self._with_all(LiveStore.learn)

    def _with_all(self, act: Callable[[LiveStore], None]) -> None:
        with self._lock:
            for store in self._stores.values():
                act(store)
            self._renew()

    @property
    def status(self) -> Status:
        """Planned cells without results, of the grids of all stores."""
        statuses = [store.status for store in self._stores.values()]
        if len(statuses) != len(self._status[0]) or any(
            new is not old for new, old in zip(statuses, self._status[0], strict=True)
        ):
            self._status = statuses, together(dict(zip(self.uris, statuses, strict=True)))
        return self._status[1]

    def planned(self) -> Status:
        """The status with the planned cells of every grid."""
        for store in self._stores.values():
            store.planned()
        return self.status

    @property
    def done(self) -> int:
        """How many planned cells have a result with its outcomes in one of the stores."""
        status, lost = self.status, sum(len(s.outcomes.lost) for s in self._stores.values())
        counted = (self.snapshot.version, id(status), lost)
        if self._done[0] != counted:
            cells = pa.array(list(status.cells), pa.string())
            done = functools.reduce(pc.or_, (store.has(cells) for store in self._stores.values()))
            differing = pc.is_in(cells, value_set=self._index.differing)
            self._done = counted, pc.sum(pc.and_not(done, differing)).as_py() or 0
        return self._done[1]

    @property
    def notes(self) -> list[tuple[str, Note]]:
        """The notes of people on all stores, each with the name of its store; the oldest first."""
        named = [(name, note) for name, store in self._stores.items() for _, note in store.notes]
        return sorted(named, key=lambda one: one[1].at)

    @property
    def skipped(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""
        return {f"{store.uri}/{name}": why for store in self._stores.values() for name, why in store.skipped.items()}

    def store_of(self, index: Index, row: int) -> str:
        """The name of the store that a row is from."""
        assert isinstance(index, JoinedIndex), "rows of several stores belong to the index of several stores"
        return index.store_of(row)

    def examples(self, cell: str, store: str = "") -> Sequence[Example]:
        """The adversarial images of a cell, of the store of this name."""
        return self._stores[store].examples(cell) if store in self._stores else ()

    def rerun_grid(self, cell: str) -> str | None:
        """The grid that reruns a cell; None where no readable stored grid has the cell."""
        return next(filter(None, (store.rerun_grid(cell) for store in self._stores.values())), None)

    def runs(self, stores: Sequence[str]) -> dict[str, list[Run]]:
        """The jobs of the sweeps of some of the stores, by the names of the stores; no name stands for all."""
        return {name: store.runs(())[""] for name, store in self._stores.items() if not stores or name in stores}

    def retry_commands(self, failed: Set[str]) -> list[str]:
        """The commands that try failed jobs again: see `StatusReader`."""
        return [command for store in self._stores.values() for command in store.retry_commands(failed)]

    def all_results(self, *columns: str) -> pa.Table:
        """Some columns of all results; a cell that two stores have comes twice."""
        return pa.concat_tables(store.all_results(*columns) for store in self._stores.values())

    def trusted_results(self, store: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of the results of the store of this name, see `LiveStore`."""
        return self._stores[store].trusted_results(columns)


#: What pages show: one store, or several.
Results = LiveStore | LiveStores


def _names(uris: Sequence[str]) -> list[str]:
    """The shortest endings of paths that tell the stores apart."""
    parts = [PurePosixPath(uri).parts for uri in uris]
    for length in range(1, max(map(len, parts)) + 1):
        names = ["/".join(few[-length:]) for few in parts]
        if len(set(names)) == len(names):
            return names
    return list(uris)


def _other_images(stores: Iterable[LiveStore]) -> list[str]:
    """The data sets whose images are others in two stores, in sentences: see `store.fingerprints`."""
    known: dict[str, tuple[str, str]] = {}
    problems = []
    for store in stores:
        for name in store.store.names("splits", ".parquet"):
            key, _, digest = name.partition("-")
            path = f"{store.uri}/splits/{name}"
            before, other = known.setdefault(key, (digest, path))
            if before and digest and before != digest:
                problems.append(
                    f"{other} and {path} are the fingerprints of one data set with other images, so that their results "
                    "must not be compared."
                )
    return problems

"""What was asked of a store and is not there: not run, running, or failed, and why."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Literal

from orchestrator.gridfile.stored import grid_names
from orchestrator.jobs.job import Job
from orchestrator.results.planned_cells import Asked, asked_by, planned
from orchestrator.results.rerun import one_cell
from orchestrator.store import tables
from orchestrator.store.claims import alive
from orchestrator.store.reasons import reason_of
from orchestrator.store.store import Store

State = Literal["not run", "running", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Where a store stands. What is done is known from its results, which a status does not hold."""

    #: The names of all stored grids that can be read as far as is known, and by name what they ask for.
    names: Sequence[str] = ()
    grids: Mapping[str, Sequence[Asked]] = dataclasses.field(default_factory=dict)
    #: Jobs that run and jobs that failed for good, by key and by title; of the failed ones the error.
    running: frozenset[str] = frozenset()
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Number of trials that run, and of jobs that failed for good.
    trials: int = 0
    failures: int = 0
    #: Grids that could not be read, with the reason.
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def planned(self) -> bool:
        """Whether it is known what every grid asks for."""
        return len(self.names) == len(self.grids)

    def asked(self) -> Iterator[Asked]:
        """Everything that any grid asks for."""
        return (asked for grid in self.grids.values() for asked in grid)

    @functools.cached_property
    def cells(self) -> Set[str]:
        """The keys of the cells that the grids ask for: one that two grids share is one cell."""
        return {cell for asked in self.asked() for cell, _, _ in asked.cells}

    def state(self, asked: Asked) -> tuple[State, str]:
        """What became of cells that have no result, with the error where there is one."""
        for at, job in enumerate(asked.jobs):
            for name in job:
                if name in self.failed:
                    return "failed", f"{'its fine-tune: ' if at else ''}{self.failed[name]}"
        return ("running" if self.running.intersection(asked.jobs[0]) else "not run"), ""

    @functools.cached_property
    def by_line(self) -> Mapping[tuple[str, ...], Sequence[Asked]]:
        """What is asked for, by the line that it belongs to."""
        found: dict[tuple[str, ...], list[Asked]] = {}
        for asked in self.asked():
            found.setdefault(asked.line, []).append(asked)
        return found

    def wants(self, line: tuple[str, ...], epsilon: float) -> bool:
        """Whether a grid asks for the line at an epsilon."""
        return any(value == epsilon for asked in self.by_line.get(line, ()) for _, value, _ in asked.cells)

    def worst(self, line: tuple[str, ...], epsilon: float) -> tuple[State, str]:
        """What became of a line's cells at an epsilon that have no result: the worst that became of any seed's."""
        states = [
            self.state(asked)
            for asked in self.by_line.get(line, ())
            if any(value == epsilon for _, value, _ in asked.cells)
        ]
        order: list[State] = ["failed", "running", "not run"]
        return min(states, key=lambda state: order.index(state[0]), default=("not run", ""))

    def lines(self, grid: str) -> frozenset[tuple[str, ...]]:
        """The lines that a grid asks for, as `Asked.line` has them."""
        return frozenset(asked.line for asked in self.grids.get(grid, ()))

    def origin(self, cell: str) -> Asked | None:
        """What asked for a cell."""
        return next((asked for asked in self.asked() if any(cell == found for found, _, _ in asked.cells)), None)


class Survey:
    """Reads the status of a store. Grids do not change under their name, so each is planned once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._grids: dict[str, Sequence[Asked]] = {}
        self._skipped: dict[str, str] = {}

    def plan(self) -> None:
        """Find out what grids ask for that were not planned yet; the first time this takes seconds, to import torch.

        A grid that this version does not understand is named and does not hide the others.
        """
        for name in self._names():
            if name not in self._grids:
                try:
                    self._grids[name] = asked_by(name, self._jobs(name))
                except (ValueError, OSError) as error:
                    self._skipped[f"grids/{name}.yaml"] = reason_of(error)

    def status(self) -> Status:
        """The status now, with what the grids ask for that were planned."""
        self.store.skipped.clear()
        names = self._names()
        trials = [trial for sign in alive(self.store) for trial in sign["running"]]
        failures = self.store.table("failures", tables.FAILURES).to_pylist()
        return Status(
            names=names,
            grids={name: self._grids[name] for name in names if name in self._grids},
            running=frozenset(str(name) for trial in trials for name in (trial["job"], trial["title"])),
            failed={str(f[name]): str(f["error"]) for f in failures for name in ("job", "title")},
            trials=len(trials),
            failures=len(failures),
            skipped={**self._skipped, **self.store.skipped},
        )

    def again(self, asked: Asked, cell: str) -> str | None:
        """The grid that runs one cell of a stored grid again."""
        return one_cell(self._jobs(asked.grid), cell)

    def _names(self) -> list[str]:
        return [name for name in grid_names(self.store) if f"grids/{name}.yaml" not in self._skipped]

    def _jobs(self, name: str) -> dict[str, Job]:
        return planned(self.store, name)

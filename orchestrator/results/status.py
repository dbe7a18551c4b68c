"""Planned cells of a store that have no result: not run, running, or failed, and why."""

from __future__ import annotations

import dataclasses
import functools
import shlex
from collections.abc import Iterator, Mapping, Sequence, Set
from typing import Any, Literal

from orchestrator.gridfile.stored import grid_names, stored_text
from orchestrator.plan.grids import GridText
from orchestrator.results.planned_cells import PlannedCells, jobs_of, planned_cells
from orchestrator.results.rerun import one_cell
from orchestrator.store import tables
from orchestrator.store.claims import alive
from orchestrator.store.reasons import reason_of
from orchestrator.store.store import Store

State = Literal["not run", "running", "failed"]
#: What precedes the error of a cell, by the kind of the job that failed.
_WHOSE = {"attack": "", "finetune": "its fine-tune: ", "pretrain": "its pre-training: "}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """The progress of a store's grids. Finished cells are known from the results, which a status does not hold."""

    #: The names of all stored grids that can be read, and by name the cells that they plan, once these are known.
    names: Sequence[str] = ()
    grids: Mapping[str, Sequence[PlannedCells]] = dataclasses.field(default_factory=dict)
    #: Running jobs and finally failed jobs, both by key and by what they do; the failed ones with their error.
    running: frozenset[str] = frozenset()
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Number of trials that run, and of jobs that failed for good.
    trials: int = 0
    failures: int = 0
    #: Grids that could not be read, with the reason.
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    @property
    def planned(self) -> bool:
        """Whether the cells of every grid are known."""
        return len(self.names) == len(self.grids)

    def planned_cells(self) -> Iterator[PlannedCells]:
        """The planned cells of all grids."""
        return (planned for grid in self.grids.values() for planned in grid)

    @functools.cached_property
    def cells(self) -> Set[str]:
        """The keys of the planned cells; a cell that two grids share counts once."""
        return {cell for planned in self.planned_cells() for cell, _, _ in planned.cells}

    def state(self, planned: PlannedCells) -> tuple[State, str]:
        """The state of cells that have no result, with the error where there is one."""
        attack = (planned.job, planned.work)
        for kind, name in (*(("attack", name) for name in attack), *planned.trainings):
            if name in self.failed:
                return "failed", f"{_WHOSE[kind]}{self.failed[name]}"
        return ("running" if self.running.intersection(attack) else "not run"), ""

    @functools.cached_property
    def by_line(self) -> Mapping[tuple[str, ...], Sequence[PlannedCells]]:
        """The planned cells by the line that they belong to."""
        by_line: dict[tuple[str, ...], list[PlannedCells]] = {}
        for planned in self.planned_cells():
            by_line.setdefault(planned.line, []).append(planned)
        return by_line

    @functools.cached_property
    def failed_lines(self) -> Mapping[tuple[str, ...], Mapping[int, str]]:
        """The lines with planned cells whose job, or a training before it, failed for good: its error by seed."""
        lines: dict[tuple[str, ...], dict[int, str]] = {}
        for planned in self.planned_cells() if self.failed else ():
            state, error = self.state(planned)
            if state == "failed":
                lines.setdefault(planned.line, {})[planned.seed] = error
        return lines

    def wants(self, line: tuple[str, ...], epsilon: float) -> bool:
        """Whether a grid plans the line at an epsilon."""
        return any(value == epsilon for planned in self.by_line.get(line, ()) for _, value, _ in planned.cells)

    def worst(self, line: tuple[str, ...], epsilon: float) -> tuple[State, str]:
        """The worst state, over seeds, of a line's cells at an epsilon that have no result."""
        states = [
            self.state(planned)
            for planned in self.by_line.get(line, ())
            if any(value == epsilon for _, value, _ in planned.cells)
        ]
        order: list[State] = ["failed", "running", "not run"]
        return min(states, key=lambda state: order.index(state[0]), default=("not run", ""))

    def lines(self, grid: str) -> frozenset[tuple[str, ...]]:
        """The lines that a grid plans, as in `PlannedCells.line`."""
        return frozenset(planned.line for planned in self.grids.get(grid, ()))

    def origin(self, cell: str) -> PlannedCells | None:
        """The planned cells that a cell is one of; None where no grid plans it."""
        return next(
            (planned for planned in self.planned_cells() if any(cell == key for key, _, _ in planned.cells)), None
        )


def together(statuses: Mapping[str, Status]) -> Status:
    """The status of several stores, by their names: a cell that two of them plan counts once."""
    every = statuses.values()
    return Status(
        names=list(dict.fromkeys(name for status in every for name in status.names)),
        grids={name: cells for status in every for name, cells in status.grids.items()},
        running=frozenset().union(*(status.running for status in every)),
        failed={job: error for status in every for job, error in status.failed.items()},
        trials=sum(status.trials for status in every),
        failures=sum(status.failures for status in every),
        skipped={
            f"{store}/{name}": reason for store, status in statuses.items() for name, reason in status.skipped.items()
        },
    )


def _names(record: Mapping[str, Any]) -> list[str]:
    """What a failure or a running trial is known by; those of older versions do not have what they do."""
    return [str(record[name]) for name in ("job", "work") if record.get(name)]


class StatusReader:
    """Reads the status of a store. Grids do not change under their name, so each is planned once."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._grids: dict[str, Sequence[PlannedCells]] = {}
        self._skipped: dict[str, str] = {}

    def plan(self) -> None:
        """Plan the grids that are not planned yet, which takes seconds where torch has to be imported.

        A grid that this version cannot read is reported and does not hide the others.
        """
        grids = {}
        for name in self._names():
            if name not in self._grids:
                try:
                    grids[name] = self._text(name)
                except (ValueError, OSError) as error:
                    self._skip(name, error)
        for name, cells in planned_cells(grids).items() if grids else ():
            if isinstance(cells, Exception):
                self._skip(name, cells)
            else:
                self._grids[name] = cells

    def status(self) -> Status:
        """The status now, with the cells of the grids that were planned."""
        self.store.skipped.clear()
        names = self._names()
        trials = [trial for sign in alive(self.store) for trial in sign["running"]]
        failures = self.store.table("failures", tables.FAILURES).to_pylist()
        return Status(
            names=names,
            grids={name: self._grids[name] for name in names if name in self._grids},
            running=frozenset(str(name) for trial in trials for name in _names(trial)),
            failed={name: str(failure["error"]) for failure in failures for name in _names(failure)},
            trials=len(trials),
            failures=len(failures),
            skipped={**self._skipped, **self.store.skipped},
        )

    def rerun_grid(self, planned: PlannedCells, cell: str) -> str | None:
        """The grid that reruns one cell of a stored grid."""
        return one_cell(jobs_of(self._text(planned.grid), planned), cell)

    def retry_commands(self, failed: Set[str]) -> list[str]:
        """For each planned grid with a failed job the command that tries it again; for all where none is known to.

        Empty for a bucket, whose grids are no files.
        """
        folder = self.store.folder
        if folder is None:
            return []
        commands: dict[str, str] = {}
        jobs: dict[str, set[str]] = {}
        for name, planned in self._grids.items():
            sets = [word for setting in self._text(name).sets for word in ("--set", setting)]
            words = ["signsym", "sweep", f"{folder}/grids/{name}.yaml", *sets, "--storage", str(folder)]
            commands[name] = shlex.join([*words, "--retry-failed"])
            jobs[name] = {job for cells in planned for job in cells.names}
        # A failure that an older version recorded may have a key that is not planned: that of an attack on fewer cells.
        return [command for name, command in commands.items() if jobs[name] & failed] or [*commands.values()]

    def _text(self, name: str) -> GridText:
        text, sets = stored_text(self.store, name)
        return GridText(text, f"{name}.yaml", sets)

    def _skip(self, name: str, error: Exception) -> None:
        self._skipped[f"grids/{name}.yaml"] = reason_of(error)

    def _names(self) -> list[str]:
        return [name for name in grid_names(self.store) if f"grids/{name}.yaml" not in self._skipped]

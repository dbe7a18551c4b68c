"""What was asked of a store and is not there: not run, running, or failed, and why."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from orchestrator import keys, tables
from orchestrator.claims import alive
from orchestrator.store import Store

if TYPE_CHECKING:
    from orchestrator.jobs import Job

State = Literal["not run", "running", "failed"]
#: A grid of more cells is not compared with the store here; `signsym status` does that.
LARGEST = 200_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """The cells of one attack on one model that a grid asks for, of one source of gradient."""

    grid: str
    #: Position of the experiment in the grid's file.
    experiment: int
    #: Values of LINE's columns but the metric, which only a result has.
    line: tuple[str, ...]
    seed: int
    #: Key, epsilon and label of each cell.
    cells: tuple[tuple[str, float, str], ...]
    #: Key and title of the attack job and of the fine-tune before it.
    jobs: tuple[tuple[str, str], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Status:
    """Where a store stands. What is done is known from its results, which a status does not hold."""

    #: Stored grids by name, each with what it asks for.
    grids: Mapping[str, Sequence[Asked]] = dataclasses.field(default_factory=dict)
    #: Jobs that run and jobs that failed for good, by key and by title; of the failed ones the error.
    running: frozenset[str] = frozenset()
    failed: Mapping[str, str] = dataclasses.field(default_factory=dict)
    #: Number of trials that run, and of jobs that failed for good.
    trials: int = 0
    failures: int = 0
    #: Grids that could not be read, with the reason.
    skipped: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def asked(self) -> Iterator[Asked]:
        """Everything that any grid asks for."""
        return (asked for grid in self.grids.values() for asked in grid)

    def state(self, asked: Asked) -> tuple[State, str]:
        """What became of cells that have no result, with the error where there is one."""
        for at, job in enumerate(asked.jobs):
            for name in job:
                if name in self.failed:
                    return "failed", f"{'its fine-tune: ' if at else ''}{self.failed[name]}"
        return ("running" if self.running.intersection(asked.jobs[0]) else "not run"), ""

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

    def status(self) -> Status:
        """The status now. A grid that this version does not understand is named and does not hide the others."""
        for file in self.store.names("grids", ".yaml"):
            name = file.removesuffix(".yaml")
            if name not in self._grids and file not in self._skipped:
                try:
                    self._grids[name] = _planned(name, self.store.read(f"grids/{file}").decode())
                except (ValueError, OSError) as error:
                    self._skipped[f"grids/{file}"] = str(error).splitlines()[0]
        trials = [trial for sign in alive(self.store) for trial in sign["running"]]
        failures = self.store.table("failures", tables.FAILURES).to_pylist()
        return Status(
            grids=dict(self._grids),
            running=frozenset(str(name) for trial in trials for name in (trial["job"], trial["title"])),
            failed={str(f[name]): str(f["error"]) for f in failures for name in ("job", "title")},
            trials=len(trials),
            failures=len(failures),
            skipped=dict(self._skipped),
        )


def _planned(name: str, text: str) -> list[Asked]:
    from orchestrator.grid import load
    from orchestrator.plan import compile_plan
    from orchestrator.sweeping import SET_MARK

    sets = [line.removeprefix(SET_MARK) for line in text.splitlines() if line.startswith(SET_MARK)]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        try:
            grid = load(Path(file.name), sets)
        except ValueError as error:
            raise ValueError(str(error).replace(file.name, name)) from None
        if len(grid) > LARGEST:
            raise ValueError(f"it has {len(grid):,} cells, too many to be compared here; see `signsym status`")
        jobs = compile_plan(grid, set(), set()).jobs
    return [asked for job in jobs.values() if job.kind == "attack" for asked in _asked(name, job, jobs)]


def _asked(grid: str, job: Job, jobs: Mapping[str, Job]) -> Iterator[Asked]:
    parent = jobs[str(job.parent)]
    figure, rule = _described(parent.spec)
    attack = _member("attacks", job.spec["attack"])
    cells: dict[str, list[tuple[str, float, str]]] = {}
    for cell, gradient, epsilon, label in keys.cells(job.spec):
        cells.setdefault(gradient, []).append((cell, epsilon, label))
    for gradient, found in cells.items():
        yield Asked(
            grid=grid,
            experiment=job.experiment,
            line=(*figure, *attack, gradient, *rule),
            seed=int(parent.spec["seed"]),
            cells=tuple(found),
            jobs=((job.key, job.title), (parent.key, parent.title)),
        )


def _described(spec: Mapping[str, Any]) -> tuple[tuple[str, ...], tuple[str, str]]:
    """A fine-tune as the columns of results describe it: those of a figure but the metric, and those of the rule."""
    from signsym_core.finetune import FineTune

    defaults = dataclasses.asdict(FineTune())
    changed = {key: value for key, value in spec["finetune"].items() if value != defaults.get(key)}
    dataset, backbone = _member("datasets", spec["dataset"]), _member("backbones", spec["backbone"])
    weights = keys.canonical(spec["weights"])
    figure = (spec["task"]["name"], *dataset, *backbone, weights, keys.canonical(changed))
    return figure, _member("rules", spec["rule"])


def _member(family: str, described: Mapping[str, Any]) -> tuple[str, str]:
    import signsym_core as ss

    registries: Mapping[str, Any] = {
        "attacks": ss.ATTACKS,
        "datasets": ss.DATASETS,
        "backbones": ss.BACKBONES,
        "rules": ss.RULES,
    }
    member = registries[family].build(described["name"], **described["parameters"])
    return member.name, keys.canonical(member.changed())

"""The cells that the grids of a store plan, by the lines that their results belong to."""

from __future__ import annotations

import dataclasses
import functools
import json
import sys
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job, Stage
from orchestrator.jobs.setting import Setting, member_columns
from orchestrator.plan.grids import GridText, names_weights_files
from orchestrator.plan.remembered import Content, Request, remembering
from orchestrator.results.line import GRID_KEY

if TYPE_CHECKING:
    # The reader of grid files needs torch.
    from orchestrator.gridfile.cells import Grid

#: The kind and the key of each training before a job.
Trainings = tuple[tuple[Stage, str], ...]
#: A grid of more cells is not compared with the store here, only by `signsym status`.
LARGEST = 200_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedCells:
    """The planned cells of one attack on one model along one source of gradient."""

    grid: str
    #: Position of the experiment in the grid's file.
    experiment: int
    #: Values of GRID_KEY's columns.
    line: tuple[str, ...]
    seed: int
    #: Key, epsilon and label of each cell.
    cells: tuple[tuple[str, float, str], ...]
    #: Key of the attack job, and what it does (`keys.work`): its key is another one where some cells were done before.
    job: str
    work: str
    #: The trainings before it, the nearest first: kind and key of each.
    trainings: Trainings

    @property
    def names(self) -> tuple[str, ...]:
        """What the attack job and every training before it are known by."""
        return (self.job, self.work, *(key for _, key in self.trainings))


def planned_cells(grids: Mapping[str, GridText]) -> dict[str, Sequence[PlannedCells] | ValueError | OSError]:
    """The cells that each grid plans, or why it cannot be read here; another process plans where this has no torch.

    A server stays without it: that is half of its memory, and it answers meanwhile.
    """
    if "torch" in sys.modules:
        return dict(zip(grids, map(_cells_or_error, grids, grids.values()), strict=True))
    requests = [Request(_as_bytes, (name, grid.text, list(grid.sets)), grid.source) for name, grid in grids.items()]
    with remembering(requests) as results:
        return {
            name: _read(name, result) if isinstance(result, bytes) else result
            for name, result in zip(grids, results(), strict=True)
        }


def planned_jobs(grid: GridText) -> Mapping[str, Job]:
    """The jobs of a grid against an empty store. Raises ValueError where it cannot be read here."""
    from orchestrator.gridfile.grid import grid_of
    from orchestrator.plan.compile import compile_full

    read_grid = grid_of(grid.text, Path(grid.source), grid.sets)
    if len(read_grid) > LARGEST:
        raise ValueError(f"it has {len(read_grid):,} cells, too many to be compared here; see `signsym status`")
    return compile_full(read_grid).jobs


def jobs_of(grid: GridText, planned: PlannedCells) -> Mapping[str, Job]:
    """The attack job of planned cells of a grid, and those before it."""
    from orchestrator.plan.compile import compile_job

    return compile_job(_grid(grid), planned.job, planned.seed)


# The pages of a report are about cells of one grid, and to read a large one takes a quarter of a second.
@functools.lru_cache(maxsize=1)
def _grid(grid: GridText) -> Grid:
    from orchestrator.gridfile.grid import grid_of

    return grid_of(grid.text, Path(grid.source), grid.sets)


def _cells_or_error(name: str, grid: GridText) -> Sequence[PlannedCells] | ValueError | OSError:
    try:
        return _cells(name, planned_jobs(grid))
    except (ValueError, OSError) as error:
        return error


def _as_bytes(name: str, text: str, sets: Sequence[str], source: str) -> Content:
    """The planned cells of a grid as compressed JSON, in which each line and each model's trainings stand once."""
    jobs = planned_jobs(GridText(text, source, tuple(sets)))
    lines: dict[tuple[str, ...], int] = {}
    trainings: dict[Trainings, int] = {}
    rows = []
    for planned in _cells(name, jobs):
        shared = lines.setdefault(planned.line, len(lines)), trainings.setdefault(planned.trainings, len(trainings))
        rows.append([*shared, planned.experiment, planned.seed, planned.cells, planned.job, planned.work])
    values = {"lines": [*lines], "trainings": [*trainings], "rows": rows}
    data = zlib.compress(json.dumps(values).encode(), 1)
    return Content(data, kept=not names_weights_files(jobs))


def _read(name: str, data: bytes) -> list[PlannedCells]:
    """The planned cells that `_as_bytes` wrote."""
    values = json.loads(zlib.decompress(data))
    lines = [tuple(line) for line in values["lines"]]
    trainings: list[Trainings] = [tuple(map(tuple, chain)) for chain in values["trainings"]]
    return [
        PlannedCells(
            grid=name,
            experiment=experiment,
            line=lines[line],
            seed=seed,
            cells=tuple(map(tuple, cells)),
            job=job,
            work=work,
            trainings=trainings[chain],
        )
        for line, chain, experiment, seed, cells, job, work in values["rows"]
    ]


# Most jobs of a grid share their model, but for its seed, and their attack; to build their members takes milliseconds.
@functools.lru_cache(maxsize=4096)
def _model_columns(described: str) -> dict[str, str]:
    model, attack = json.loads(described)
    return Setting.of(model, attack).columns()


@functools.lru_cache(maxsize=4096)
def _attack_columns(described: str) -> dict[str, str]:
    return member_columns("attack", ss.ATTACKS.rebuild(json.loads(described)))


def _cells(name: str, jobs: Mapping[str, Job]) -> list[PlannedCells]:
    before: dict[tuple[str, ...], Trainings] = {}
    planned = list[PlannedCells]()
    for job in jobs.values():
        if job.kind == "attack":
            if job.parents not in before:
                before[job.parents] = _trainings(job, jobs)
            planned += _cells_of_job(name, job, jobs[job.parents[0]], before[job.parents])
    return planned


def _trainings(job: Job, jobs: Mapping[str, Job]) -> Trainings:
    """The trainings before a job, parents before theirs."""
    found = list(job.parents)
    for key in found:
        found += [parent for parent in jobs[key].parents if parent not in found]
    return tuple((jobs[key].kind, key) for key in found)


def _cells_of_job(grid: str, job: Job, parent: Job, trainings: Trainings) -> Iterator[PlannedCells]:
    """The cells of an attack job on the model of `parent`."""
    model = {name: value for name, value in parent.spec.items() if name != "seed"}
    tested = {name: job.spec[name] for name in ("score", "test") if name in job.spec}
    columns = _model_columns(keys.canonical([model, tested]))
    columns = columns | _attack_columns(keys.canonical(job.spec["attack"]))
    cells: dict[str, list[tuple[str, float, str]]] = {}
    for cell, gradient, epsilon, label in keys.cells(job.spec):
        cells.setdefault(gradient, []).append((cell, epsilon, label))
    for gradient, planned in cells.items():
        yield PlannedCells(
            grid=grid,
            experiment=job.experiment,
            line=tuple((columns | {"gradient": gradient})[name] for name in GRID_KEY),
            seed=int(parent.spec["seed"]),
            cells=tuple(planned),
            job=job.key,
            work=keys.work(job.key, job.spec),
            trainings=trainings,
        )

"""The cells that the grids of a store plan, by the lines that their results belong to."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.setting import Setting, member_columns
from orchestrator.results.line import LINE

if TYPE_CHECKING:
    from orchestrator.jobs.job import Job
    from orchestrator.store.store import Store

#: A grid of more cells is not compared with the store here, only by `signsym status`.
LARGEST = 200_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlannedCells:
    """The planned cells of one attack on one model along one source of gradient."""

    grid: str
    #: Position of the experiment in the grid's file.
    experiment: int
    #: Values of LINE's columns but the metric, which only a result has.
    line: tuple[str, ...]
    seed: int
    #: Key, epsilon and label of each cell.
    cells: tuple[tuple[str, float, str], ...]
    #: Key and title of the attack job and of the fine-tunes before it.
    jobs: tuple[tuple[str, str], ...]


def planned_jobs(store: Store, name: str) -> dict[str, Job]:
    """The jobs of a stored grid against an empty store. Raises ValueError where it cannot be read here."""
    from orchestrator.gridfile.stored import stored_grid
    from orchestrator.plan.compile import compile_plan

    grid = stored_grid(store, name)
    if len(grid) > LARGEST:
        raise ValueError(f"it has {len(grid):,} cells, too many to be compared here; see `signsym status`")
    return dict(compile_plan(grid, set(), set()).jobs)


def planned_cells(name: str, jobs: Mapping[str, Job]) -> list[PlannedCells]:
    """The cells that a grid's jobs compute."""
    return [planned for job in jobs.values() if job.kind == "attack" for planned in _cells_of_job(name, job, jobs)]


def _cells_of_job(grid: str, job: Job, jobs: Mapping[str, Job]) -> Iterator[PlannedCells]:
    # The model that is attacked comes first; a transfer has its BP twin after it.
    parents = [jobs[key] for key in job.parents]
    parent = parents[0]
    columns = Setting.of(parent.spec, job.spec.get("score")).columns()
    columns |= member_columns("attack", ss.ATTACKS.rebuild(job.spec["attack"]))
    cells: dict[str, list[tuple[str, float, str]]] = {}
    for cell, gradient, epsilon, label in keys.cells(job.spec):
        cells.setdefault(gradient, []).append((cell, epsilon, label))
    for gradient, planned in cells.items():
        yield PlannedCells(
            grid=grid,
            experiment=job.experiment,
            line=tuple((columns | {"gradient": gradient})[name] for name in LINE if name != "metric"),
            seed=int(parent.spec["seed"]),
            cells=tuple(planned),
            jobs=((job.key, job.title), *((parent.key, parent.title) for parent in parents)),
        )

"""What a sweep needs to know before its first job, found out by a process of its own.

Reading a grid needs the registries and with them torch, half a gigabyte that the process which drives Ray for days has
no other use for.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import multiprocessing
from collections.abc import Mapping, Sequence
from pathlib import Path

from orchestrator.callbacks import CallbackChoice
from orchestrator.estimate import Group, survey
from orchestrator.jobs import Job
from orchestrator.packing import Memory
from orchestrator.store import Store


@dataclasses.dataclass(frozen=True, kw_only=True)
class Prepared:
    """A grid's plan for one store, without what only a plan's readers need."""

    grid: str
    #: The grid file and the settings over it, as they are kept in the store.
    text: str
    sets: tuple[str, ...]
    callbacks: tuple[CallbackChoice, ...]
    #: The jobs that the store lacks, parents before children.
    jobs: Mapping[str, Job]
    #: Numbers of cells, of all and of those that have a result.
    cells: int
    done: int
    #: Estimated seconds of each job, and the memory that jobs of each group were measured to need.
    seconds: Mapping[str, float]
    memory: Mapping[Group, Memory]


def prepare(path: Path, sets: Sequence[str], storage: str) -> Prepared:
    """Read the grid and the store, and plan. Raises GridError, PlanError and StoreError."""
    from orchestrator.grid import load
    from orchestrator.plan import compile_plan

    grid = load(path, sets)
    found = survey(Store(storage))
    plan = compile_plan(grid, found.done_cells, found.done_models)
    return Prepared(
        grid=grid.name,
        text=grid.text,
        sets=grid.sets,
        callbacks=grid.callbacks,
        jobs=plan.jobs,
        cells=len(plan.cells),
        done=len(plan.done),
        seconds=found.estimates(plan.jobs.values()),
        memory=found.memory,
    )


def prepare_apart(path: Path, sets: Sequence[str], storage: str) -> Prepared:
    """`prepare` in a process of its own, which ends with it."""
    fresh = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(1, mp_context=fresh) as pool:
        return pool.submit(prepare, path, list(sets), storage).result()

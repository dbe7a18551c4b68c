"""What a sweep needs to know before its first job, found out by a process of its own.

Reading a grid needs the registries and with them torch, half a gigabyte that the process which drives Ray for days has
no other use for.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import multiprocessing
from collections.abc import Mapping, Sequence, Set
from multiprocessing.connection import Connection
from pathlib import Path
from typing import TYPE_CHECKING

from orchestrator.gridfile.callbacks import CallbackChoice
from orchestrator.jobs.job import Job
from orchestrator.plan.estimate import Group, Survey, survey
from orchestrator.plan.packing import Memory
from orchestrator.store.reasons import reason_of
from orchestrator.store.store import Store

if TYPE_CHECKING:
    from orchestrator.gridfile.cells import Grid
    from orchestrator.plan.compile import Plan

#: Models that are read at once, since each may have half a gigabyte.
AT_ONCE = 4


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
    #: Files of the store that could not be used, with the reason.
    skipped: Mapping[str, str]
    #: What stands in the place of results of these jobs and is none: damaged, or without what belongs to it.
    unsound: Set[str]
    #: Keys of the models that are done.
    finished: Set[str]


def prepare(path: Path, sets: Sequence[str], storage: str) -> Prepared:
    """Read the grid and the store, and plan. Raises GridError, PlanError and StoreError."""
    from orchestrator.gridfile.grid import load

    grid, store = load(path, sets), Store(storage)
    found = survey(store)
    plan = sound_plan(grid, found, store)
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
        skipped=store.skipped,
        unsound=store.exists([job.results for job in plan.jobs.values()]),
        finished=found.done_models - set(plan.jobs),
    )


def sound_plan(grid: Grid, found: Survey, store: Store) -> Plan:
    """The plan of `grid`, in which models that its jobs need and whose files are damaged are trained again."""
    from orchestrator.plan.compile import compile_plan

    usable: set[str] = set()
    done = set(found.done_models)
    while True:
        plan = compile_plan(grid, found.done_cells, done)
        needed = {parent for job in plan.jobs.values() for parent in job.parents} - set(plan.jobs) - usable
        if not needed:
            for key in found.bare_models & set(plan.jobs):
                store.check_model(key)
            return plan
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            found_usable = pool.map(functools.partial(_usable, store), needed)
            usable |= {key for key, sound in zip(needed, found_usable, strict=True) if sound}
        done -= needed - usable


def _usable(store: Store, key: str) -> bool:
    """Whether a model is what was saved, with the codes that an attack on retrieval needs."""
    from orchestrator.work.models import task_of

    try:
        return store.check_model(key, codes=task_of(store.record(key)["spec"]).retrieves)
    except (OSError, ValueError) as error:
        store.skipped[f"models/{key}/record.json"] = reason_of(error)
        return False


def prepare_apart(path: Path, sets: Sequence[str], storage: str) -> Prepared:
    """`prepare` in a process of its own, which ends with it."""
    # A pipe alone, and no pool: a pool's locks need /dev/shm, which not every container has.
    fresh = multiprocessing.get_context("spawn")
    receiver, sender = fresh.Pipe(duplex=False)
    process = fresh.Process(target=_prepare_for, args=(sender, path, list(sets), storage))
    process.start()
    sender.close()
    try:
        prepared: Prepared | Exception = receiver.recv()
    except EOFError:
        process.join()
        raise ChildProcessError(
            f"the process that reads the grid and the store ended with status {process.exitcode} before it was through"
            f"{'; -9 is what a full memory of the machine looks like' if process.exitcode == -9 else ''}"
        ) from None
    process.join()
    if isinstance(prepared, Exception):
        raise prepared
    return prepared


def _prepare_for(sender: Connection, path: Path, sets: Sequence[str], storage: str) -> None:
    try:
        sender.send(prepare(path, sets, storage))
    except Exception as error:
        sender.send(error)

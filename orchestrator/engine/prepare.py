"""The plan of a sweep, made before the first job."""

from __future__ import annotations

import concurrent.futures
import dataclasses
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from orchestrator.gridfile.callbacks import CallbackChoice
from orchestrator.gridfile.idle_sets import refuse_idle
from orchestrator.gridfile.yamlfile import read
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job
from orchestrator.plan.estimate import Group, StoreSurvey, survey_store
from orchestrator.plan.full import FullPlan, Plan
from orchestrator.plan.grids import GridText, planning_one, planning_stored
from orchestrator.plan.packing import Memory
from orchestrator.store import merged, provenance, tables
from orchestrator.store.store import Store
from signsym_core import extensions

#: Models that are read concurrently: few, since each may have half a gigabyte.
AT_ONCE = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreparedSweep:
    """A grid's plan for one store, as plain values."""

    grid: str
    #: The text of the grid file and its --set values, as the store keeps them.
    text: str
    sets: tuple[str, ...]
    callbacks: tuple[CallbackChoice, ...]
    #: What the grid asks for in vain.
    notices: tuple[str, ...]
    #: The jobs that the store lacks, parents before children.
    jobs: Mapping[str, Job]
    #: The number of cells, and of those that have a result.
    cells: int
    done: int
    #: Estimated seconds of each job, and the memory that jobs of each group were measured to need.
    seconds: Mapping[str, float]
    memory: Mapping[Group, Memory]
    #: Files of the store that could not be used, each with the reason.
    skipped: Mapping[str, str]
    #: Paths of result files of these jobs that are damaged or incomplete.
    unsound: Set[str]
    #: Keys of the models that are done.
    finished: Set[str]
    #: Keys of failed attack jobs whose attack has other cells left now, or none: another job took their place. Those
    #: that another stored grid lacks, and none of whose cells this one has, stay failed.
    overtaken: Set[str]
    #: The user's modules with another text than some of the cells or fine-tunes that are done were computed with, and
    #: how many cells and fine-tunes.
    edited: tuple[Sequence[str], int, int]


def prepare(path: Path, sets: Sequence[str], storage: str) -> PreparedSweep:
    """Read the grid and the store, and plan. Raises GridError, PlanError and StoreError."""
    grid, store = GridText(read(path), str(path), tuple(sets)), Store(storage)
    with planning_one(grid) as plan_of_grid:
        survey, full = survey_store(store), plan_of_grid()
        refuse_idle(grid.text, grid.sets)
        plan = sound_plan(full, survey, store)
        # By the process that has planned.
        seconds = survey.estimates(plan.jobs.values())
    return PreparedSweep(
        grid=full.grid,
        text=grid.text,
        sets=grid.sets,
        callbacks=full.callbacks,
        notices=full.notices,
        jobs=plan.jobs,
        cells=len(plan.cells),
        done=len(plan.done),
        seconds=seconds,
        memory=survey.memory,
        skipped=store.skipped,
        unsound=merged.finished(store, [job.results for job in plan.jobs.values()]),
        finished=survey.done_models - set(plan.jobs),
        overtaken=_overtaken(store, full, plan, survey),
        edited=_edited(full, plan, survey),
    )


def _edited(full: FullPlan, plan: Plan, survey: StoreSurvey) -> tuple[Sequence[str], int, int]:
    texts = extensions.digests()

    def of_other_text(versions: str | None) -> set[str]:
        with_texts = provenance.extended(versions).items()
        modules = ((name.rpartition(" ")[2], digest) for name, digest in with_texts)
        return {module for module, digest in modules if digest != texts.get(module, digest)}

    of_cells = [
        edited for cell in plan.done & survey.extended.keys() if (edited := of_other_text(survey.extended[cell]))
    ]
    trained = [survey.trained[key] for key in (full.finetunes & survey.done_models) - set(plan.jobs)]
    of_models = [edited for record in trained if (edited := of_other_text(record["versions"]))]
    return sorted(set().union(*of_cells, *of_models)), len(of_cells), len(of_models)


def _overtaken(store: Store, full: FullPlan, plan: Plan, survey: StoreSurvey) -> Set[str]:
    failures = store.table("failures", tables.FAILURES).to_pylist() if store.names("failures", ".parquet") else []
    failed = {failure["job"]: failure["work"] for failure in failures if failure["job"] not in plan.jobs}
    if not any(failed.values()):
        return frozenset()
    works = {keys.work(job.key, job.spec) for job in full.jobs.values() if job.kind == "attack"}
    overtaken = frozenset(key for key, work in failed.items() if work in works)
    return overtaken - _of_another_grid(store, overtaken, full, survey) if overtaken else overtaken


def _of_another_grid(store: Store, failed: Set[str], full: FullPlan, survey: StoreSurvey) -> Set[str]:
    """Those of some failed attack jobs that another stored grid lacks and that have no cell of this one."""
    with planning_stored(store) as plans_of_grids:
        left = [other.left(survey.done_cells, survey.done_models).jobs for other in plans_of_grids().values()]
    jobs = [jobs[key] for jobs in left for key in failed & jobs.keys()]
    return {job.key for job in jobs if full.cells.isdisjoint(cell for cell, *_ in keys.cells(job.spec))}


def sound_plan(full: FullPlan, survey: StoreSurvey, store: Store) -> Plan:
    """What is left of a plan; a model that its jobs need and whose files are damaged is trained again."""
    usable: set[str] = set()
    done = set(survey.done_models)
    while True:
        plan = full.left(survey.done_cells, done)
        needed = {parent for job in plan.jobs.values() for parent in job.parents} - set(plan.jobs) - usable
        if not needed:
            for key in survey.bare_models & set(plan.jobs):
                store.check_model(key)
            return plan
        with concurrent.futures.ThreadPoolExecutor(AT_ONCE) as pool:
            checked = pool.map(lambda key: store.check_model(key, codes=key in full.retrieving), needed)
            usable |= {key for key, is_usable in zip(needed, checked, strict=True) if is_usable}
        done -= needed - usable

"""Reads from a store what a plan needs: which jobs are done, and the time and memory that similar jobs took."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Mapping
from statistics import median
from typing import TYPE_CHECKING

import numpy as np
import pyarrow.compute as pc

from orchestrator.jobs.job import Job
from orchestrator.plan.packing import Memory
from orchestrator.store.apart import apart, pays
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.store import Store
from orchestrator.store.trusted import sound_results

if TYPE_CHECKING:
    from orchestrator.plan.compile import Plan

#: Kind, backbone, data set and, for an attack, its name: jobs that should take equally long.
Group = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreSurvey:
    """The cells and models that are done in a store, and the measured time and memory by the group of the job."""

    done_cells: set[str] = dataclasses.field(default_factory=set)
    done_models: set[str] = dataclasses.field(default_factory=set)
    #: Models with a record but without weights.
    bare_models: set[str] = dataclasses.field(default_factory=set)
    #: The median of seconds, and the peak of GPU memory with the GPU's own, both in bytes.
    seconds: dict[Group, float] = dataclasses.field(default_factory=dict)
    memory: dict[Group, Memory] = dataclasses.field(default_factory=dict)

    def estimates(self, jobs: Iterable[Job]) -> dict[str, float]:
        """Seconds of each job by its key: the measured median of its group, else the job's stated default."""
        return {job.key: self.seconds.get(job.group, job.default_seconds) for job in jobs}


def survey_store(store: Store) -> StoreSurvey:
    """Read `store` once. A file that cannot be trusted counts as not done and is named in `store.skipped`."""
    records, done = store.models()
    survey = StoreSurvey(done_models=done, bare_models=set(records) - done)
    times: dict[Group, list[float]] = {}
    for record in records.values():
        spec = record["spec"]
        group: Group = (spec["kind"], spec["backbone"]["name"], spec["dataset"]["name"])
        times.setdefault(group, []).append(record["seconds"])
        _peak(survey.memory, group, record.get("gpu_peak"), record.get("gpu_total"))
    columns = ["job", "backbone", "dataset", "attack", "seconds", "gpu_peak", "gpu_total"]
    for rows in sound_results(store, ["cell", *columns]):
        survey.done_cells.update(rows["cell"].to_pylist())
        # All rows of a job have the same time.
        jobs = to_numpy(pc.dictionary_encode(single(rows["job"])).indices)
        firsts = to_arrow(np.unique(jobs, return_index=True)[1])
        for row in rows.select(columns).take(firsts).to_pylist():
            group = ("attack", row["backbone"], row["dataset"], row["attack"])
            if row["seconds"] is not None:
                times.setdefault(group, []).append(row["seconds"])
            _peak(survey.memory, group, row["gpu_peak"], row["gpu_total"])
    survey.seconds.update({group: median(seconds) for group, seconds in times.items()})
    return survey


@contextlib.contextmanager
def surveying(store: Store) -> Iterator[Callable[[], StoreSurvey]]:
    """`survey_store`, of a large local store in a process of its own: meanwhile this one may import torch."""
    if not pays(store, "results", "outcomes"):
        yield functools.partial(survey_store, store)
        return
    with apart(_survey_of, store.uri) as result:

        def survey_of_store() -> StoreSurvey:
            survey, skipped, unsealed = result()
            store.skipped |= skipped
            store.unsealed |= unsealed
            return survey

        yield survey_of_store


def _survey_of(uri: str) -> tuple[StoreSurvey, dict[str, str], set[str]]:
    store = Store(uri)
    return survey_store(store), store.skipped, store.unsealed


def hours(jobs: Iterable[Job], seconds: Mapping[str, float], resource: str) -> float:
    """Hours of a resource, "gpu" or "cpu", over `jobs`; a job under "auto" counts as one GPU."""
    total = 0.0
    for job in jobs:
        amount = getattr(job.resources, resource)
        total += seconds[job.key] * (1.0 if amount == "auto" else amount)
    return total / 3600


def longest_chain(plan: Plan, seconds: Mapping[str, float]) -> float:
    """Seconds of the longest chain of dependent jobs: no number of GPUs makes the sweep shorter."""
    ends: dict[str, float] = {}
    for key, job in plan.jobs.items():
        ends[key] = seconds[key] + max((ends.get(parent, 0.0) for parent in job.parents), default=0.0)
    return max(ends.values(), default=0.0)


def unshared(plan: Plan, seconds: Mapping[str, float], survey: StoreSurvey) -> float:
    """Hours that one fine-tune per missing cell would add to the plan: of GPUs, or of CPUs where no GPU is used."""
    models = {job.key: job for job in plan.jobs.values() if job.kind == "finetune"}
    added = 0.0
    for job in plan.jobs.values():
        if job.kind == "attack":
            model = models.get(job.spec["model"])
            duration = seconds[model.key] if model else survey.seconds.get(("finetune", *job.group[1:3]), 0.0)
            amount = model.resources.gpu or model.resources.cpu if model else 1.0
            added += len(job.spec["points"]) * duration * (1.0 if amount == "auto" else amount)
    for model in models.values():
        amount = model.resources.gpu or model.resources.cpu
        added -= seconds[model.key] * (1.0 if amount == "auto" else amount)
    return max(0.0, added) / 3600


def _peak(memory: dict[Group, Memory], group: Group, peak: int | None, total: int | None) -> None:
    if peak and total:
        before = memory.get(group, (0, total))
        memory[group] = (max(peak, before[0]), min(total, before[1]))

"""Reads from a store what a plan needs: which jobs are done, and the time and memory that similar jobs took."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.jobs.job import Job, Pace
from orchestrator.plan.full import Plan
from orchestrator.plan.packing import Memory
from orchestrator.plan.speeds import Speeds
from orchestrator.plan.storespeeds import speeds_of
from orchestrator.store import provenance
from orchestrator.store.arrays import flags, single, to_arrow, to_numpy
from orchestrator.store.progress import Progress, silent
from orchestrator.store.store import Store
from orchestrator.store.trusted import sound_results

#: Kind, backbone, data set and, for an attack, its name: jobs that should take equally long.
Group = tuple[str, ...]

_TIMED = ("seconds", "device", "precision", "gpu_share", "finished_at")
_TRAINED = (*_TIMED, "spec", "train_images", "versions")
_ATTACKED = ["job", "finetune_job", "backbone", "dataset", "attack", "attack_params", "gradient", "n", "forwards"]
_ATTACKED += ["backwards", "gpu_peak", "gpu_total", *_TIMED]
#: The columns of results that a survey reads.
READ = ["cell", "epsilon", "versions", *_ATTACKED]


@dataclasses.dataclass(frozen=True, kw_only=True)
class StoreSurvey:
    """The cells and models that are done in a store, and how long and how large its jobs were."""

    done_cells: set[str] = dataclasses.field(default_factory=set)
    done_models: set[str] = dataclasses.field(default_factory=set)
    #: Models with a record but without weights.
    bare_models: set[str] = dataclasses.field(default_factory=set)
    #: Of each finished training's record, by its key, and of a row of each finished attack job, what its time is about.
    trained: dict[str, dict[str, Any]] = dataclasses.field(default_factory=dict)
    attacked: list[pa.Table] = dataclasses.field(default_factory=list)
    #: For each cell that was computed with members of the user's the versions that say with what text of their module.
    extended: dict[str, str] = dataclasses.field(default_factory=dict)
    #: The peak of GPU memory with the GPU's own, both in bytes.
    memory: dict[Group, Memory] = dataclasses.field(default_factory=dict)

    def estimates(self, jobs: Iterable[Job]) -> dict[str, float]:
        """Seconds of each job by its key: its stated ones, times the ratio of the most similar jobs of the store."""
        return {job.key: job.loading + job.default_seconds * self.ratio(job) for job in jobs}

    def ratio(self, job: Job) -> float:
        """Measured over stated seconds of the store's jobs that are most similar; 1 where there is none."""
        return self.speeds.ratios.get(self.similar(job), 1.0)

    def similar(self, job: Job) -> Pace:
        """The longest beginning of the job's pace that was measured, on its kind of device; () where none was."""
        return self.speeds.similar(job.pace)

    @functools.cached_property
    def speeds(self) -> Speeds:
        """How fast the store's jobs were."""
        return speeds_of(self.trained, self.attacked)


def survey_store(store: Store, progress: Progress = silent) -> StoreSurvey:
    """Read `store` once. A file that cannot be trusted counts as not done and is named in `store.skipped`.

    `progress` is told the models and the bytes that were read.
    """
    records, done = store.models(progress)
    survey = StoreSurvey(done_models=done, bare_models=set(records) - done)
    for key, record in records.items():
        spec = record["spec"]
        _peak(survey.memory, (spec["kind"], spec["backbone"]["name"], spec["dataset"]["name"]), record)
        survey.trained[key] = {name: record.get(name) for name in _TRAINED}
    for rows in sound_results(store, READ, progress):
        survey.done_cells.update(rows["cell"].to_pylist())
        versions = pc.dictionary_encode(single(rows["versions"]))
        if any(provenance.extended(text) for text in versions.dictionary.to_pylist()):
            by_user = zip(rows["cell"].to_pylist(), versions.to_pylist(), strict=True)
            survey.extended.update((cell, text) for cell, text in by_user if provenance.extended(text))
        # All rows of a job have the same time.
        jobs = to_numpy(pc.dictionary_encode(single(rows["job"])).indices)
        firsts = np.unique(jobs, return_index=True)[1]
        above, clean = _epsilons(jobs, to_numpy(single(rows["epsilon"])), len(firsts))
        # As columns: rows of ten thousand jobs would take as long to make and to pass on as files do to read.
        columns = rows.select(_ATTACKED).take(to_arrow(firsts)).append_column("above", to_arrow(above))
        survey.attacked.append(columns.append_column("clean", flags(clean)))
        for row in columns.filter(pc.is_valid(columns["gpu_peak"])).to_pylist():
            _peak(survey.memory, ("attack", row["backbone"], row["dataset"], row["attack"]), row)
    return survey


def _epsilons(jobs: npt.NDArray[Any], epsilons: npt.NDArray[Any], count: int) -> tuple[npt.NDArray[Any], ...]:
    """For each of `count` jobs the number of different epsilons above 0, and whether there is 0."""
    values, places = np.unique(epsilons, return_inverse=True)
    pairs = np.unique(jobs.astype(np.int64) * len(values) + places)
    owners, above = pairs // len(values), values[pairs % len(values)] > 0
    return np.bincount(owners[above], minlength=count), np.bincount(owners[~above], minlength=count) > 0


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
            done = survey.trained.get(job.spec["model"], {"seconds": 0.0})
            duration = seconds[model.key] if model else done["seconds"]
            amount = model.resources.gpu or model.resources.cpu if model else 1.0
            added += len(job.spec["points"]) * duration * (1.0 if amount == "auto" else amount)
    for model in models.values():
        amount = model.resources.gpu or model.resources.cpu
        added -= seconds[model.key] * (1.0 if amount == "auto" else amount)
    return max(0.0, added) / 3600


def _peak(memory: dict[Group, Memory], group: Group, job: Mapping[str, Any]) -> None:
    peak, total = job.get("gpu_peak"), job.get("gpu_total")
    if peak and total:
        before = memory.get(group, (0, total))
        memory[group] = (max(peak, before[0]), min(total, before[1]))

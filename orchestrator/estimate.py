"""How long jobs will take: the median of what like jobs took in this store, or a stated default."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping
from statistics import median

from orchestrator.plan import Job, Kind
from orchestrator.store import Store

#: Seconds of a job of which nothing is known yet.
DEFAULTS: Mapping[Kind, float] = {"pretrain": 120.0, "finetune": 60.0, "attack": 10.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Estimates:
    """Seconds for each job, and how many of them rest on measurements."""

    seconds: Mapping[str, float]
    measured: int

    def total(self, jobs: Iterable[Job], resource: str) -> float:
        """Estimated hours of a resource, "gpu" or "cpu", over `jobs`."""
        return sum(self.seconds[job.key] * float(getattr(job.resources, resource)) for job in jobs) / 3600


def estimate(jobs: Iterable[Job], store: Store) -> Estimates:
    """Estimates for `jobs` from what `store` holds."""
    times = {group: median(seconds) for group, seconds in _measured(store).items()}
    jobs = list(jobs)
    seconds = {job.key: times.get(job.group, DEFAULTS[job.kind]) for job in jobs}
    return Estimates(seconds=seconds, measured=sum(job.group in times for job in jobs))


def _measured(store: Store) -> dict[tuple[str, ...], list[float]]:
    times: dict[tuple[str, ...], list[float]] = {}
    for record in store.records().values():
        spec = record["spec"]
        group = (spec["kind"], spec["backbone"]["name"], spec["dataset"]["name"])
        times.setdefault(group, []).append(record["seconds"])
    for row in store.results().drop_duplicates("job").to_dict("records"):
        times.setdefault(("attack", row["backbone"], row["dataset"], row["attack"]), []).append(row["seconds"])
    return times

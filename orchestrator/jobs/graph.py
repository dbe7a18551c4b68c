"""Which jobs depend on which."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.jobs.job import Job


def children_of(jobs: Mapping[str, Job]) -> dict[str, list[str]]:
    """The keys of the jobs that depend on each job, in the order of `jobs`."""
    children: dict[str, list[str]] = {}
    for job in jobs.values():
        for parent in dict.fromkeys(job.parents):
            children.setdefault(parent, []).append(job.key)
    return children


def descendants(children: Mapping[str, Sequence[str]], failed: Iterable[str]) -> set[str]:
    """The keys of all jobs that depend on one of the `failed`, directly or not: they are blocked."""
    blocked: set[str] = set()
    pending = list(failed)
    while pending:
        for child in children.get(pending.pop(), ()):
            if child not in blocked:
                blocked.add(child)
                pending.append(child)
    return blocked

"""A full plan as bytes and back: JSON, in which values that many jobs share stand once, compressed."""

from __future__ import annotations

import json
import zlib
from collections.abc import Hashable
from typing import Any

from orchestrator.gridfile.callbacks import CallbackChoice
from orchestrator.jobs.job import Job, Resources
from orchestrator.plan.full import AttackCells, FullPlan

#: What no other job has: of a job, and of its description.
_JOB = ("key", "kind", "parents", "title", "default_seconds", "loading", "memory", "experiment")
_SPEC = ("model", "seed", "surrogate")


def written(plan: FullPlan) -> bytes:
    """The plan as bytes, which `read` reads."""
    shared: dict[str, dict[Hashable, int]] = {"specs": {}, "resources": {}, "names": {}, "seconds": {}}

    def number(table: str, value: Hashable) -> int:
        return shared[table].setdefault(value, len(shared[table]))

    rows = []
    for key, job in plan.jobs.items():
        unshared = {name: job.spec[name] for name in _SPEC if name in job.spec}
        rest = {name: value for name, value in job.spec.items() if name not in unshared}
        numbers = [number("specs", json.dumps(rest)), number("resources", job.resources)]
        numbers += [number("names", job.group), number("names", job.pace)]
        attack = plan.attacks.get(key)
        cells = None if attack is None else [attack.cells, number("seconds", attack.seconds)]
        rows.append([[getattr(job, name) for name in _JOB], unshared, numbers, cells])
    values: dict[str, Any] = {"grid": plan.grid, "experiments": plan.experiments, "jobs": rows}
    values |= {"notices": plan.notices}
    values |= {"callbacks": [[callback.name, callback.options] for callback in plan.callbacks]}
    values |= {"specs": [json.loads(str(text)) for text in shared["specs"]], "names": [*shared["names"]]}
    values |= {"resources": [vars(amounts) for amounts in shared["resources"]], "seconds": [*shared["seconds"]]}
    values |= {"finetunes": sorted(plan.finetunes), "retrieving": sorted(plan.retrieving)}
    # The fastest compression: most of it are keys, which cannot be compressed.
    return zlib.compress(json.dumps(values, separators=(",", ":")).encode(), 1)


def read(content: bytes) -> FullPlan:
    """The plan that `written` wrote; raises an exception of any kind for other bytes."""
    values = json.loads(zlib.decompress(content))
    specs, resources = [*map(_spec, values["specs"])], [Resources(**amounts) for amounts in values["resources"]]
    names, seconds = [*map(tuple, values["names"])], [tuple(map(tuple, rows)) for rows in values["seconds"]]
    jobs, attacks = {}, {}
    for fields, unshared, (spec, amounts, group, pace), cells in values["jobs"]:
        job = Job(
            **dict(zip(_JOB, fields, strict=True)) | {"parents": tuple(fields[_JOB.index("parents")])},
            spec=unshared | specs[spec],
            resources=resources[amounts],
            group=names[group],
            pace=names[pace],
        )
        jobs[job.key] = job
        if cells is not None:
            attacks[job.key] = AttackCells(cells=tuple(cells[0]), seconds=seconds[cells[1]])
    return FullPlan(
        grid=values["grid"],
        experiments=tuple(values["experiments"]),
        callbacks=tuple(CallbackChoice(name=name, options=options) for name, options in values["callbacks"]),
        notices=tuple(values["notices"]),
        jobs=jobs,
        attacks=attacks,
        finetunes=frozenset(values["finetunes"]),
        retrieving=frozenset(values["retrieving"]),
    )


def _spec(shared: dict[str, Any]) -> dict[str, Any]:
    """What several jobs' descriptions share, its points as plans have them."""
    return shared | ({"points": tuple(map(tuple, shared["points"]))} if "points" in shared else {})

"""The grid that reruns exactly one cell, with every value written out as it was resolved then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job
from orchestrator.jobs.setting import Setting, written
from orchestrator.jobs.surrogates import TRANSFER, names_surrogate


def one_cell(jobs: Mapping[str, Job], cell: str) -> str | None:
    """The YAML of a grid of one cell, whose plan has the same key; None where no attack of `jobs` has it.

    `jobs` are those of a plan against an empty store, so that pre-trainings are among them.
    """
    for job in jobs.values():
        if job.kind != "attack":
            continue
        for key, gradient, _, label in keys.cells(job.spec):
            if key == cell:
                return _grid(jobs, job, gradient, label)
    return None


def _grid(jobs: Mapping[str, Job], job: Job, gradient: str, label: str) -> str:
    finetune = jobs[job.parents[0]].spec
    setting = Setting.of(finetune, job.spec)
    experiment = setting.experiment(lambda key: jobs[key].spec, resolved=True)
    grid: dict[str, Any] = {"name": "again", "seeds": [finetune["seed"]], "experiments": [experiment]}
    attack = written(ss.ATTACKS.rebuild(job.spec["attack"]), resolved=True)
    if attack["name"] != "none":
        attack["epsilon"] = [_number(label)]
        if names_surrogate(gradient):
            # Where the job has none, the named surrogate is the attacked model.
            made_on = jobs[job.spec.get("surrogate", job.spec["model"])].spec
            attack["gradient"] = TRANSFER
            attack["surrogate"] = {"rule": written(ss.RULES.rebuild(made_on["rule"]), resolved=True)}
            if made_on["seed"] != finetune["seed"]:
                attack["surrogate"]["seed"] = "other"
                grid |= {"seeds": sorted([made_on["seed"], finetune["seed"]]), "exclude": [{"seed": made_on["seed"]}]}
        elif gradient != "none":
            attack["gradient"] = gradient
        if job.spec["images"] is not None:
            attack["images"] = job.spec["images"]
        experiment["attacks"] = [attack]
    elif job.spec["images"] is not None:
        experiment["attacks"] = [attack | {"images": job.spec["images"]}]
    return yaml.safe_dump(grid, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)


def _number(label: str) -> float | str:
    try:
        return float(label)
    except ValueError:
        return label

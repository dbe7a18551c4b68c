"""The grid that reruns exactly one cell, with every value written out as it was resolved then."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import yaml

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job
from signsym_core.registry import Registry, rebuild


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
    task = finetune["task"]["parameters"] | job.spec.get("score", {})
    experiment: dict[str, Any] = {"task": _member(ss.TASKS, finetune["task"] | {"parameters": task})}
    families: Mapping[str, Registry[Any]] = {"dataset": ss.DATASETS, "backbone": ss.BACKBONES, "rule": ss.RULES}
    experiment |= {name: _member(family, finetune[name]) for name, family in families.items()}
    weights = _weights(jobs, finetune["weights"])
    if weights is not None:
        experiment["weights"] = weights
    experiment["finetune"] = _settings(finetune["finetune"])
    attack = _member(ss.ATTACKS, job.spec["attack"])
    if attack["name"] != "none":
        attack["epsilon"] = [_number(label)]
        if gradient != "none":
            attack["gradient"] = gradient
        if job.spec["images"] is not None:
            attack["images"] = job.spec["images"]
        experiment["attacks"] = [attack]
    elif job.spec["images"] is not None:
        experiment["attacks"] = [attack | {"images": job.spec["images"]}]
    grid = {"name": "again", "seeds": [finetune["seed"]], "experiments": [experiment]}
    return yaml.safe_dump(grid, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)


def _weights(jobs: Mapping[str, Job], weights: Mapping[str, Any] | None) -> Any:
    if weights is None:
        return None
    if "pretrain" not in weights:
        return weights.get("published") or weights["file"]
    before = jobs[weights["pretrain"]].spec
    dataset = _member(ss.DATASETS, before["dataset"])
    return {"pretrain": {"dataset": dataset, "seed": before["seed"], **_settings(before["finetune"])}}


def _member(family: Registry[Any], described: Mapping[str, Any]) -> dict[str, Any]:
    parameters = family.rebuild(described).parameters()
    # YAML has lists and no tuples.
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in parameters.items()}
    return {"name": described["name"], **plain}


def _settings(finetune: Mapping[str, Any]) -> dict[str, Any]:
    return dataclasses.asdict(rebuild(ss.FineTune, "finetune", finetune))


def _number(label: str) -> float | str:
    try:
        return float(label)
    except ValueError:
        return label

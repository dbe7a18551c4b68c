"""The grid that runs one cell again, and nothing else: every value written out as it was resolved then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from orchestrator import keys
from orchestrator.jobs import Job


def one_cell(jobs: Mapping[str, Job], cell: str) -> str | None:
    """The YAML of a grid of one cell, whose plan has the same key; None where no attack of `jobs` has it.

    `jobs` are those of a plan against an empty store, so that pre-trainings are among them.
    """
    for job in jobs.values():
        if job.kind != "attack":
            continue
        for found, gradient, _, label in keys.cells(job.spec):
            if found == cell:
                return _grid(jobs, job, gradient, label)
    return None


def _grid(jobs: Mapping[str, Job], job: Job, gradient: str, label: str) -> str:
    made = jobs[job.parents[0]].spec
    experiment: dict[str, Any] = {"task": _member(made["task"], job.spec.get("score", {}))}
    experiment |= {name: _member(made[name]) for name in ("dataset", "backbone", "rule")}
    weights = _weights(jobs, made["weights"])
    if weights is not None:
        experiment["weights"] = weights
    experiment["finetune"] = made["finetune"]
    attack = _member(job.spec["attack"])
    if attack["name"] != "none":
        attack["epsilon"] = [_number(label)]
        if gradient != "none":
            attack["gradient"] = gradient
        if job.spec["images"] is not None:
            attack["images"] = job.spec["images"]
        experiment["attacks"] = [attack]
    elif job.spec["images"] is not None:
        experiment["attacks"] = [attack | {"images": job.spec["images"]}]
    grid = {"name": "again", "seeds": [made["seed"]], "experiments": [experiment]}
    return yaml.safe_dump(grid, sort_keys=False, default_flow_style=None, allow_unicode=True, width=100)


def _weights(jobs: Mapping[str, Job], weights: Mapping[str, Any] | None) -> Any:
    if weights is None:
        return None
    if "pretrain" not in weights:
        return weights.get("published") or weights["file"]
    before = jobs[weights["pretrain"]].spec
    return {"pretrain": {"dataset": _member(before["dataset"]), "seed": before["seed"], **before["finetune"]}}


def _member(described: Mapping[str, Any], more: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"name": described["name"], **described["parameters"], **(more or {})}


def _number(label: str) -> float | str:
    try:
        return float(label)
    except ValueError:
        return label

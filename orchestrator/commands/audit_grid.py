"""The grid that completes an audit: the models of the store, with every attack that the checks need.

Its models have the keys of the store's fine-tunes, so a sweep of it trains nothing but missing backpropagation twins.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any

import yaml

import signsym_core as ss
from orchestrator.jobs.setting import Setting
from orchestrator.results.judgements import ModelEvidence
from orchestrator.store.store import Store
from signsym_core.auditing.audit import margins
from signsym_core.auditing.masking import GREY

#: Steps of the iterated attack.
STEPS = 20
#: Steps of APGD, which adapts its step size.
FINE = 50
#: Queries of the black-box attack, and images that it runs on.
QUERIES, IMAGES = 1000, 500
#: The radii of a model that was never attacked.
RADII = (0.01, 0.05, 0.1)

_HEAD = """\
# The attacks that the audit of {store} needs, on its models: their fine-tunes are reused.
# Attacks and epsilons may be added; changed settings of the models would be other models.
"""


def audit_grid(
    models: Sequence[ModelEvidence], store: Store, name: str = "audit", accused: Sequence[ModelEvidence] = ()
) -> str:
    """A grid file for all of `models`, whose records are in `store`; with APGD on a ratio of logits for those `accused`
    by attacks alone that a poor loss does not mislead.
    """
    experiments = [_experiment(model, store, accused=any(model is one for one in accused)) for model in models]
    grid = {"name": name, "defaults": {"resources": {"gpu": "auto", "cpu": 1}}, "experiments": experiments}
    return _HEAD.format(store=store.uri) + yaml.dump(
        grid, Dumper=_Plain, sort_keys=False, width=120, allow_unicode=True
    )


class _Plain(yaml.SafeDumper):
    """A dumper without aliases, which a grid must not have."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def attacks(task: str, epsilons: Iterable[float | str]) -> list[dict[str, Any]]:
    """The attacks that the checks need on a model of the task `task`."""
    radii = list(epsilons)
    many, one = ("pgd", {"name": "fgsm"}) if task == "classification" else ("hag", {"name": "hag", "steps": 1})
    needed: list[dict[str, Any]] = [
        {**one, "gradient": ["feedback", "exact"], "epsilon": radii},
        {"name": many, "steps": STEPS, "gradient": ["feedback", "exact", "transfer"], "epsilon": radii},
    ]
    needed.append({"name": "noise", "epsilon": radii})
    if task == "classification":
        # Far stronger than PGD where small steps matter.
        needed.append({"name": "apgd", "steps": FINE, "gradient": ["feedback", "exact"], "epsilon": radii})
        # Each query costs a forward pass, so it runs on fewer images, and not on radii that defeat every model.
        small = [radius for radius in radii if _value(radius) < GREY]
        needed.append({"name": "square", "queries": QUERIES, "images": IMAGES, "epsilon": small})
    return [attack for attack in needed if attack["epsilon"]]


def on_margins(classes: int, epsilons: Iterable[float | str]) -> list[dict[str, Any]]:
    """APGD on a ratio of logits, for a classifier of so many classes whose cross-entropy may be a poor loss."""
    parameters = margins(classes)
    named = {"name": "apgd", "steps": FINE, "gradient": ["feedback", "exact"], "epsilon": list(epsilons)}
    return [] if parameters is None else [{**named, **parameters}]


def _value(radius: float | str) -> float:
    """The radius as a number; 0 for a text that is no number, which the grid's reader refuses with its place."""
    try:
        return float(Fraction(radius))
    except ValueError:
        return 0.0


def _experiment(model: ModelEvidence, store: Store, accused: bool) -> dict[str, Any]:
    def record_of(job: str) -> dict[str, Any]:
        record: dict[str, Any] = json.loads(store.read(f"models/{job}/record.json"))
        return record

    def spec_of(job: str) -> dict[str, Any]:
        spec: dict[str, Any] = record_of(job)["spec"]
        return spec

    # The scoring parameters and the test images are those of the attacks.
    task, dataset = (
        {"name": model.setting[name], "parameters": json.loads(model.setting[f"{name}_params"])}
        for name in ("task", "dataset")
    )
    job = next(iter(model.jobs.values()))
    trained = Setting.of(spec_of(job))
    setting = dataclasses.replace(trained, task=ss.TASKS.rebuild(task), dataset=ss.DATASETS.rebuild(dataset))
    radii = {run.epsilon: model.labels[run.epsilon] for run in model.evidence.of()} or {e: str(e) for e in RADII}
    radii |= {GREY: "0.5", 1.0: "1"}
    epsilons = [_radius(value, label) for value, label in sorted(radii.items())]
    needed = attacks(setting.task.name, epsilons)
    if accused and setting.task.name == "classification":
        needed += on_margins(len(record_of(job)["classes"]), epsilons)
    return setting.experiment(spec_of, resolved=False) | {"seeds": sorted(model.jobs), "attacks": needed}


def _radius(value: float, label: str) -> float | str:
    """The label, where the grid wrote a fraction; else the value."""
    return label if "/" in label else value

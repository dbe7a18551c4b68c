"""The setting of a fine-tuned model in all its forms: its job's spec, members, columns of results, a grid's YAML."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import signsym_core as ss
from orchestrator.jobs import keys
from signsym_core.registry import Member, changed, not_default, rebuild

if TYPE_CHECKING:
    # Each imports torch, which pages do without.
    from signsym_core.backbones import Backbone
    from signsym_core.datasets.base import DataSource
    from signsym_core.rules import Rule
    from signsym_core.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """Everything that decides a fine-tune but its seed."""

    task: Task
    dataset: DataSource
    backbone: Backbone
    rule: Rule
    finetune: ss.FineTune
    #: As the spec has them: {"pretrain": key of the job}, {"published": name}, {"file", "sha256"}, or None.
    weights: Mapping[str, Any] | None
    #: Of a fine-tune that goes on from a training of its own seed, the key of that training at seed 0.
    started: str | None = None

    @classmethod
    def of(cls, spec: Mapping[str, Any], attack: Mapping[str, Any] | None = None) -> Setting:
        """The setting in a fine-tune's spec, scored and tested as the spec of an attack on its model says."""
        attack = attack or {}
        return cls(
            task=task_of(spec, attack.get("score")),
            dataset=ss.DATASETS.rebuild(tested_on(spec, attack)),
            backbone=ss.BACKBONES.rebuild(spec["backbone"]),
            rule=ss.RULES.rebuild(spec["rule"]),
            finetune=rebuild(ss.FineTune, "finetune", spec["finetune"]),
            weights=spec["weights"],
            started=spec.get("started"),
        )

    def columns(self) -> dict[str, str]:
        """The columns of a result that describe the model."""
        weights = self.weights
        if self.started is not None:
            weights = {**(weights or {}), "pretrain": self.started, "seed": "same"}
        row = {"weights": keys.canonical(weights), "finetune": keys.canonical(changed(self.finetune))}
        for name in ("task", "dataset", "backbone", "rule"):
            row |= member_columns(name, getattr(self, name))
        return row

    def experiment(self, spec_of: Callable[[str], Mapping[str, Any]], *, resolved: bool) -> dict[str, Any]:
        """The model as an experiment of a grid writes it: all values where `resolved`, else what is not the default.

        `spec_of` has the spec of a pre-training by the job's key.
        """
        members = {name: written(getattr(self, name), resolved) for name in ("task", "dataset", "backbone", "rule")}
        weights = _written_weights(self.weights, spec_of, resolved)
        return (
            members | ({} if weights is None else {"weights": weights}) | {"finetune": _values(self.finetune, resolved)}
        )


def _written_weights(
    weights: Mapping[str, Any] | None, spec_of: Callable[[str], Mapping[str, Any]], resolved: bool
) -> Any:
    if not weights:
        return None
    if "pretrain" not in weights:
        return weights.get("published") or weights["file"]
    spec = spec_of(weights["pretrain"])
    dataset = written(ss.DATASETS.rebuild(spec["dataset"]), resolved)
    before = {"dataset": dataset, "seed": spec["seed"]}
    before |= {"head": weights["head"]} if "head" in weights else {}
    before |= {"rule": written(ss.RULES.rebuild(spec["rule"]), resolved)} if "rule" in spec else {}
    started = _written_weights(spec.get("weights"), spec_of, resolved)
    before |= {} if started is None else {"weights": started}
    return {"pretrain": before | _values(rebuild(ss.FineTune, "finetune", spec["finetune"]), resolved)}


def task_of(spec: Mapping[str, Any], score: Mapping[str, Any] | None = None) -> Task:
    """The task of a fine-tune, with the scoring parameters `score` of an attack."""
    return ss.TASKS.rebuild(
        {"name": spec["task"]["name"], "parameters": {**spec["task"]["parameters"], **(score or {})}}
    )


def tested_on(spec: Mapping[str, Any], attack: Mapping[str, Any]) -> dict[str, Any]:
    """The description of the data set of a fine-tune, with the test images of an attack on its model."""
    trained = spec["dataset"]
    return {"name": trained["name"], "parameters": {**trained["parameters"], **attack.get("test", {})}}


def member_columns(column: str, member: Member) -> dict[str, str]:
    """The two columns of a result that describe a member of a registry: its name and its parameters."""
    return {column: member.name, f"{column}_params": keys.canonical(member.changed())}


def written(member: Member, resolved: bool) -> Any:
    """A member as a grid writes it: all its parameters where `resolved`, else those that are not the default."""
    values = _values(member, resolved)
    return {"name": member.name, **values} if resolved or values else member.name


def _values(settings: Any, resolved: bool) -> dict[str, Any]:
    values = dataclasses.asdict(settings) if resolved else not_default(settings)
    return {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    """A value as YAML writes it: lists and no tuples, mappings of no class of ours."""
    if isinstance(value, dict):
        return {name: _plain(inner) for name, inner in value.items()}
    return list(value) if isinstance(value, tuple) else value

"""The training settings of an experiment: weights to start from, the fine-tune, and resources of jobs."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.gridfile.cells import Head, Pretrain, Weights
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.gridfile.resources import Amounts, resources
from orchestrator.gridfile.values import built, one_of, required, seed, used
from signsym_core.datasets import DATASETS
from signsym_core.registry import ParameterError, build
from signsym_core.rules import RULES
from signsym_core.training.settings import FineTune

#: The keys of a pre-training beside the settings of a fine-tune.
PRETRAIN_KEYS = ("dataset", "seed", "rule", "head", "weights")
#: Settings of a fine-tune that decide whether it fits a rule, or a data set.
OPTIMIZER_KEYS = ("optimizer", "weight_decay")
VALIDATION_KEYS = ("keep", "patience")
_FINETUNE_KEYS = [field.name for field in dataclasses.fields(FineTune)]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """The training settings that one place of the file states."""

    finetune: dict[str, Node] = dataclasses.field(default_factory=dict)
    #: The weights and the node that states them; None where none does.
    weights: tuple[Weights | Pretrain | None, Node] | None = None
    resources: Amounts = dataclasses.field(default_factory=dict)

    def under(self, override: Training) -> Training:
        """These settings, replaced by those that `override` states."""
        return Training(
            finetune={**self.finetune, **override.finetune},
            weights=override.weights or self.weights,
            resources={**self.resources, **override.resources},
        )


def training(mapping: Mapping[str, Node]) -> Training:
    """The training settings among the keys of one place."""
    problems = Problems()
    stated: dict[str, Any] = {}
    for key, read in (("finetune", finetune), ("weights", _stated_weights), ("resources", resources)):
        if key in mapping:
            with problems.kept():
                stated[key] = read(mapping[key])
    problems.check()
    return Training(**stated)


def _stated_weights(node: Node) -> tuple[Weights | Pretrain | None, Node]:
    return weights(node), node


def weights(node: Node) -> Weights | Pretrain | None:
    if node.value is None or node.value == "none":
        return None
    if isinstance(node.value, str):
        return Weights(source=node.text("weights: a name, a path, or null"), where=f"{node.where}: {node.path}")
    inner = required(node.mapping("weights: a name, a path, null or {pretrain: ...}", ["pretrain"]), "pretrain", node)
    settings = dict(inner.mapping("pretrain", [*PRETRAIN_KEYS, *_FINETUNE_KEYS]))
    required(settings, "dataset", inner)
    before = {key: settings.pop(key) for key in PRETRAIN_KEYS if key in settings}
    problems = Problems()
    values: dict[str, Any] = {}
    with problems.kept():
        values["dataset"], stated = used(before["dataset"], DATASETS)
        chosen = values["dataset"].testing.keys() & values["dataset"].changed().keys()
        idle = [key for key in stated if key in chosen]
        if idle:
            raise (
                before["dataset"]
                .mapping("a data set")[idle[0]]
                .error(f"expected no {idle[0]!r} of a data set that is pre-trained on: it only chooses test images")
            )
    with problems.kept():
        values["head"] = one_of(before["head"], "head", [*typing.get_args(Head)]) if "head" in before else "fresh"
    with problems.kept():
        if "rule" in before:
            values["rule"] = used(before["rule"], RULES)[0]
    with problems.kept():
        if "weights" in before:
            values["weights"] = weights(before["weights"])
    with problems.kept():
        # A training that goes on usually does so seed by seed, as its row in the results does.
        values["seed"] = seed(before["seed"]) if "seed" in before else None if values.get("head") == "keep" else 0
    with problems.kept():
        values["settings"] = built(FineTune, "pretrain", settings, inner)
    problems.check()
    pretrain = Pretrain(**values)
    reason = pretrain.rule.misfit(pretrain.settings.optimizer, pretrain.settings.weight_decay)
    if reason is not None:
        place = first_of(settings, OPTIMIZER_KEYS, before.get("rule", node))
        raise place.error(f"pretrain does not fit rule {pretrain.rule.name!r}: {reason}")
    if (problem := pretrain.settings.misfit(pretrain.dataset)) is not None:
        raise first_of(settings, VALIDATION_KEYS, node).error(f"pretrain: {problem}")
    return pretrain


def first_of(nodes: Mapping[str, Node], keys: Sequence[str], otherwise: Node) -> Node:
    """The node of the first of `keys` that `nodes` states, which an error about these keys names."""
    return next((nodes[key] for key in keys if key in nodes), otherwise)


def _innermost(place: Node, error: str) -> str:
    """Where the entry stands, of the mapping at `place`, whose key or value `error` is about; else where `place` is."""
    for key, node in place.value.items() if isinstance(place.value, dict) else ():
        if any(words in error for words in (f"parameter {key!r} ", f": {key!r}", f": {key} ", f": {node.value!r}")):
            return node.where
    return place.where


def finetune(node: Node) -> dict[str, Node]:
    """The settings that one place states, each checked by itself, in case that another place replaces it.

    They are checked together with those that the place inherits.
    """
    settings = node.mapping("finetune", _FINETUNE_KEYS)
    problems = Problems()
    for key, place in settings.items():
        with problems.kept():
            try:
                build(FineTune, "finetune", {key: place.plain})
            except ParameterError as error:
                # What another setting has to be beside this one may be stated elsewhere.
                if f"parameter {key!r}" in str(error):
                    raise dataclasses.replace(place, where=_innermost(place, str(error))).error(str(error)) from None
    problems.check()
    return settings

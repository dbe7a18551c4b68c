"""Whether the members of a model fit each other: data set, backbone, rule, attacks, and what was trained before."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import torch

from orchestrator.gridfile.cells import Groups, Pretrain, Weights
from orchestrator.gridfile.experiment import Experiment
from orchestrator.gridfile.training import OPTIMIZER_KEYS, VALIDATION_KEYS, Training, first_of
from signsym_core.backbones import Backbone
from signsym_core.datasets import DataSource
from signsym_core.registry import ParameterError, UnknownNameError
from signsym_core.rules import Rule
from signsym_core.rules.convert import UnservedLayerError, layer_rules
from signsym_core.training.settings import FineTune


def refuse_misfit(point: Mapping[str, Any], training: Training, finetune: FineTune, experiment: Experiment) -> None:
    backbone, dataset, rule = point["backbone"], point["dataset"], point["rule"]
    places = {axis: experiment.axes[axis][value] for axis, value in point.items()}
    if (problem := _missized(backbone, dataset)) is not None:
        where = f"dataset: {places['dataset'].where}, backbone: {places['backbone'].where}"
        raise experiment.node.error(f"{problem} ({where})")
    if (problem := _untrained(backbone, rule) or _misnamed_layers(backbone, rule)) is not None:
        raise places["rule"].error(problem)
    reason = rule.misfit(finetune.optimizer, finetune.weight_decay)
    if reason is not None:
        place = first_of(training.finetune, OPTIMIZER_KEYS, places["rule"])
        raise place.error(f"finetune does not fit rule {rule.name!r}: {reason}")
    if (problem := finetune.misfit(dataset)) is not None:
        raise first_of(training.finetune, VALIDATION_KEYS, experiment.node).error(f"finetune: {problem}")
    adversarial = finetune.adversarial
    if adversarial is not None and (problem := adversarial.misfit(point["task"])) is not None:
        raise first_of(training.finetune, ("adversarial",), experiment.node).error(f"finetune: {problem}")
    if training.weights is not None:
        weights, node = training.weights
        while isinstance(weights, Pretrain):
            if weights.head == "keep" and list(point["task"].objective(2, 0).parameters()):
                raise node.error(
                    f"expected head: fresh for task {point['task'].name!r}, whose loss has parameters of its own that "
                    f"are not kept beside the model, got head: keep"
                )
            problem = _missized(backbone, weights.dataset) or _untrained(backbone, weights.rule)
            if (problem := problem or _misnamed_layers(backbone, weights.rule)) is not None:
                raise node.error(f"pretrain: {problem}")
            if weights.head == "keep" and (problem := _other_classes(weights.dataset, dataset)) is not None:
                raise node.error(problem)
            weights = weights.weights
        if isinstance(weights, Weights) and weights.published and backbone.published is None:
            raise node.error(
                f"expected a path, pretrain or null for backbone {backbone.name!r}, which has no published weights, "
                f"got {weights.source!r}"
            )


def _missized(backbone: Backbone, dataset: DataSource) -> str | None:
    """Why the images of `dataset`, where their size is known, are none for `backbone`; None where they are."""
    if dataset.sides is None or all(backbone.admits(side) for side in dataset.sides):
        return None
    height, width = dataset.sides
    size = f"images of {height} x {width}" if dataset.size is None else f"size {dataset.size}"
    return (
        f"expected images of {backbone.sizes} for backbone {backbone.name!r}, got data set {dataset.name!r} with {size}"
    )


def _untrained(backbone: Backbone, rule: Rule) -> str | None:
    """Why `rule` does not train `backbone`; None where it does."""
    if rule.backbones is None or backbone.name in rule.backbones:
        return None
    trained = ", ".join(sorted(rule.backbones))
    return f"expected a backbone that rule {rule.name!r} trains ({trained}), got {backbone.name!r}"


def _other_classes(before: DataSource, dataset: DataSource) -> str | None:
    """Why a head of the classes of `before` is none for `dataset`; None where it is, or where they are not known."""
    counts = [source.class_count for source in (before, dataset)]
    names = [_class_names(source) for source in (before, dataset)]
    expected = "expected head: fresh, or the classes of the fine-tune, which head: keep goes on with, got data set "
    if None not in counts and counts[0] != counts[1]:
        return f"{expected}{before.name!r} with {counts[0]} classes before {dataset.name!r} with {counts[1]}"
    if None not in names and names[0] != names[1]:
        lists = [", ".join(of_source or ()) for of_source in names]
        return f"{expected}{before.name!r} with {lists[0]} before {dataset.name!r} with {lists[1]}"
    return None


def _class_names(source: DataSource) -> tuple[str, ...] | None:
    """The classes of a data set in their order, where they are known without reading the data."""
    names = source.class_names
    if names is None or source.classes is None:
        return names
    return tuple(chosen if isinstance(chosen, str) else names[chosen] for chosen in source.classes)


def refuse_idle_slopes(backbone: Backbone, groups: Groups, experiment: Experiment) -> None:
    for choice, _ in groups:
        slope = choice.attack.spike_slope
        if slope is not None and not backbone.spiking:
            raise experiment.attacks.named[choice].error(
                f"expected spike_slope null for backbone {backbone.name!r}, which has no units that spike, got {slope}"
            )


def refuse_misfit_surrogates(backbone: Backbone, finetune: FineTune, groups: Groups, experiment: Experiment) -> None:
    """Raise GridError for an attack whose surrogate cannot be trained with the settings of the attacked model."""
    for choice, _ in groups:
        if choice.surrogate is None:
            continue
        rule, seeds = choice.surrogate.rule, list(experiment.axes["seed"])
        problem = _untrained(backbone, rule) or _misnamed_layers(backbone, rule)
        if problem is None and (reason := rule.misfit(finetune.optimizer, finetune.weight_decay)) is not None:
            problem = f"finetune does not fit rule {rule.name!r}: {reason}"
        if problem is None and choice.surrogate.other_seed and len(seeds) < 2:
            problem = f"expected two seeds or more for one of another seed, got {seeds}"
        if problem is not None:
            raise experiment.attacks.named[choice].error(f"surrogate: {problem}")


@functools.lru_cache(maxsize=64)
def _misnamed_layers(backbone: Backbone, rule: Rule) -> str | None:
    """Why the layers that `rule` names are not those of `backbone`; None where they are."""
    if rule.by_layer and not rule.bp_layers:
        return None
    try:
        # On this device tensors have shapes and no numbers.
        with torch.device("meta"):
            layer_rules(backbone.build(2, size=backbone.min_size), rule)
    except (UnknownNameError, ParameterError, UnservedLayerError) as error:
        return f"rule {rule.name!r} on backbone {backbone.name!r}: {error}"
    return None

"""The product of each experiment's axes, its overrides and the exclusions: experiments in, models with attacks out."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import torch

from orchestrator.gridfile.attacks import Attacks, refuse_twice
from orchestrator.gridfile.cells import AttackChoice, Epsilon, Groups, ModelChoice, Pretrain, Stages, Weights
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.gridfile.values import (
    MODEL_AXES,
    OPTIMIZER_KEYS,
    VALIDATION_KEYS,
    Amounts,
    Condition,
    built,
    first_of,
)
from orchestrator.jobs.job import STAGES, Resources
from signsym_core.backbones import Backbone
from signsym_core.datasets import DataSource
from signsym_core.finetune import FineTune
from signsym_core.registry import ParameterError, UnknownNameError
from signsym_core.rules import Rule
from signsym_core.rules.convert import UnservedLayerError, layer_rules

H = TypeVar("H", bound=Hashable)


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
    """Other training settings for some of an experiment's models."""

    when: Condition
    training: Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A product of axes with one set of attacks."""

    node: Node
    #: The values of each of MODEL_AXES, in this order, with their nodes.
    axes: dict[str, dict[Any, Node]]
    attacks: Attacks
    training: Training
    overrides: list[Override]

    def has_models(self, condition: Condition) -> bool:
        """Whether the product has a model that the condition admits."""
        return all(any(condition.admits(axis, value) for value in values) for axis, values in self.axes.items())

    def has_cells(self, condition: Condition) -> bool:
        """Whether the product has a cell that the condition admits."""
        cells = ((choice, epsilon) for choice, epsilons in self.attacks.cells.items() for epsilon in epsilons)
        return self.has_models(condition) and any(condition.admits_cell(*cell) for cell in cells)


class Expanded(NamedTuple):
    """Every model once, in the order that Grid documents, with its attacks without the excluded cells."""

    models: dict[ModelChoice, Groups]
    #: For each model, the position of the first experiment that contains each of its attack choices.
    origins: dict[ModelChoice, tuple[int, ...]]


def expand(top: Node, experiments: Sequence[Experiment], excludes: Sequence[Condition]) -> Expanded:
    """The models of all experiments.

    Raises GridError for a condition that matches nothing, a combination that does not fit, a cell that two places
    request, one model with two sets of resources, and a grid without any cell that is not excluded.
    """
    problems = Problems()
    _refuse_idle(experiments, excludes, problems)
    shared: dict[Hashable, Any] = {}
    requests: dict[ModelChoice, list[_ModelRequest]] = {}
    for experiment_position, experiment in enumerate(experiments):
        with problems.kept():
            for model, groups in _Expansion(experiment, excludes, shared).models():
                requests.setdefault(model, []).append(_ModelRequest(model, groups, experiment, experiment_position))
    problems.check()
    models: dict[ModelChoice, Groups] = {}
    origins: dict[ModelChoice, tuple[int, ...]] = {}
    for model, model_requests in requests.items():
        with problems.kept():
            models[model] = model_requests[0].groups if len(model_requests) == 1 else _joined(model_requests)
            first: dict[AttackChoice, int] = {}
            for request in model_requests:
                for choice, _ in request.groups:
                    first.setdefault(choice, request.experiment_position)
            origin = tuple(first[choice] for choice, _ in models[model])
            origins[model] = shared.setdefault(("origins", origin), origin)
    problems.check()
    if not models:
        raise top.error("expected a grid with a cell, got one whose exclusions leave none")
    return Expanded(models, origins)


class _ModelRequest(NamedTuple):
    """One experiment's attacks on a model."""

    model: ModelChoice
    groups: Groups
    experiment: Experiment
    experiment_position: int


def _refuse_idle(experiments: Sequence[Experiment], excludes: Sequence[Condition], problems: Problems) -> None:
    for experiment in experiments:
        for override in experiment.overrides:
            with problems.kept():
                if not experiment.has_models(override.when):
                    raise override.when.node.error("expected a condition that matches, got one without any model")
    for exclude in excludes:
        with problems.kept():
            if not any(experiment.has_cells(exclude) for experiment in experiments):
                raise exclude.node.error("expected an exclusion that matches, got one without any cell")


class _Expansion:
    """The models of one experiment; equal settings and groups of attacks are one shared object."""

    def __init__(self, experiment: Experiment, excludes: Sequence[Condition], shared: dict[Hashable, Any]) -> None:
        self.experiment = experiment
        self._excludes = excludes
        #: Equal members of all experiments are one object.
        self._shared = shared
        self._trained: dict[tuple[int, ...], tuple[Training, FineTune, Stages]] = {}
        self._groups: dict[tuple[str, tuple[int, ...]], Groups] = {}

    def models(self) -> Iterator[tuple[ModelChoice, Groups]]:
        axes = [[self._share(value) for value in values] for values in self.experiment.axes.values()]
        for values in itertools.product(*axes):
            point = dict(zip(MODEL_AXES, values, strict=True))
            excludes = _matching(self._excludes, point)
            groups = self._left(point["task"].name, excludes)
            if groups:
                training, finetune, resources = self._training(point)
                _refuse_misfit(point, training, finetune, self.experiment)
                _refuse_idle_slopes(point["backbone"], groups, self.experiment)
                weights = self._share(training.weights[0]) if training.weights else None
                yield ModelChoice(**point, weights=weights, finetune=finetune, resources=resources), groups

    def _share(self, value: H) -> H:
        shared: H = self._shared.setdefault(value, value)
        return shared

    def _training(self, point: Mapping[str, Any]) -> tuple[Training, FineTune, Stages]:
        """The experiment's training under the overrides that match."""
        matching = _matching([override.when for override in self.experiment.overrides], point)
        if matching not in self._trained:
            training = self.experiment.training
            for position in matching:
                training = training.under(self.experiment.overrides[position].training)
            finetune = built(FineTune, "finetune", training.finetune, self.experiment.node)
            stages = self._share(_stages(training.resources))
            self._trained[matching] = (training, self._share(finetune), stages)
        return self._trained[matching]

    def _left(self, task: str, excludes: tuple[int, ...]) -> Groups:
        """The experiment's attacks without the cells that the exclusions match; all of them must fit the task."""
        if (task, excludes) not in self._groups:
            conditions = [self._excludes[position] for position in excludes]
            groups: list[tuple[AttackChoice, tuple[Epsilon, ...]]] = []
            problems = Problems()
            for choice, cells in self.experiment.attacks.cells.items():
                left = tuple(e for e in cells if not any(c.admits_cell(choice, e) for c in conditions))
                with problems.kept():
                    if left and task not in choice.attack.tasks:
                        fitting = ", ".join(sorted(choice.attack.tasks))
                        named = self.experiment.attacks.named.get(choice, self.experiment.node)
                        raise named.error(
                            f"expected an attack for task {task!r}, got {choice.attack.name!r}, which is for {fitting}"
                        )
                if left:
                    groups.append((self._share(choice), left))
            problems.check()
            self._groups[task, excludes] = tuple(groups)
        return self._groups[task, excludes]


def _stages(amounts: Amounts) -> Stages:
    """The resources of each stage: an amount that names the stage replaces one that names none."""
    resources = {
        # Amounts without a stage come first, so that those of the stage replace them.
        stage: {
            key: value
            for named_stage in (None, stage)
            for (amount_stage, key), value in amounts.items()
            if amount_stage == named_stage
        }
        for stage in STAGES
    }
    return Stages(**{stage: Resources(**amounts) for stage, amounts in resources.items()})


def _matching(conditions: Sequence[Condition], point: Mapping[str, Any]) -> tuple[int, ...]:
    """Positions of the conditions that match the model."""
    return tuple(
        position
        for position, condition in enumerate(conditions)
        if all(condition.admits(axis, value) for axis, value in point.items())
    )


def _refuse_misfit(point: Mapping[str, Any], training: Training, finetune: FineTune, experiment: Experiment) -> None:
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
    if None in counts or counts[0] == counts[1]:
        return None
    return (
        f"expected head: fresh, or the classes of the fine-tune, which head: keep goes on with, got data set "
        f"{before.name!r} with {counts[0]} classes before {dataset.name!r} with {counts[1]}"
    )


def _refuse_idle_slopes(backbone: Backbone, groups: Groups, experiment: Experiment) -> None:
    for choice, _ in groups:
        slope = choice.attack.spike_slope
        if slope is not None and not backbone.spiking:
            raise experiment.attacks.named[choice].error(
                f"expected spike_slope null for backbone {backbone.name!r}, which has no units that spike, got {slope}"
            )


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


def _joined(requests: Sequence[_ModelRequest]) -> Groups:
    """The attacks of several experiments on one model, each cell requested by one of them."""
    first = requests[0]
    cells: dict[AttackChoice, dict[Epsilon, Node | None]] = {}
    for request in requests:
        if request.model.resources != first.model.resources:
            raise request.experiment.node.error(
                f"expected equal resources for equal models, got {_amounts(request)} after {_amounts(first)} at "
                f"{first.experiment.node.where}"
            )
        for choice, epsilons in request.groups:
            places = cells.setdefault(choice, {})
            for epsilon in epsilons:
                place = request.experiment.attacks.cells[choice][epsilon]
                refuse_twice(choice, epsilon, place, places.get(epsilon))
                places[epsilon] = places.get(epsilon) or place
    return tuple((choice, tuple(epsilons)) for choice, epsilons in cells.items())


def _amounts(request: _ModelRequest) -> str:
    """The resources in words: "gpu 1, cpu 4", and for each stage where stages differ."""

    def words(resources: Resources) -> str:
        usual = Resources(gpu=resources.gpu, cpu=resources.cpu)
        shown = [f"gpu {resources.gpu if resources.gpu == 'auto' else format(resources.gpu, 'g')}"]
        shown.append(f"cpu {resources.cpu:g}")
        for name in ("accelerator_type", "minutes"):
            if getattr(resources, name) != getattr(usual, name):
                shown.append(f"{name} {getattr(resources, name)}")
        return ", ".join(shown)

    stages = {stage: words(request.model.resources.of(stage)) for stage in STAGES}
    if len(set(stages.values())) == 1:
        return stages["attack"]
    return "; ".join(f"{stage}: {amounts}" for stage, amounts in stages.items())

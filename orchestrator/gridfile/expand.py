"""The product of each experiment's axes, its overrides and the exclusions: experiments in, models with attacks out."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from orchestrator.gridfile.attacks import Attacks, refuse_twice
from orchestrator.gridfile.cells import AttackChoice, Epsilon, Groups, Model, Pretrain, Stages, Weights
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.gridfile.values import MODEL_AXES, Amounts, Condition, built
from orchestrator.jobs.job import STAGES, Resources
from signsym_core.finetune import FineTune

H = TypeVar("H", bound=Hashable)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """How models are trained, as far as one place says."""

    finetune: dict[str, Node] = dataclasses.field(default_factory=dict)
    #: The weights and where they are given; None where they are not.
    weights: tuple[Weights | Pretrain | None, Node] | None = None
    resources: Amounts = dataclasses.field(default_factory=dict)

    def under(self, other: Training) -> Training:
        """This, where `other` says nothing else."""
        return Training(
            finetune={**self.finetune, **other.finetune},
            weights=other.weights or self.weights,
            resources={**self.resources, **other.resources},
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Override:
    """Another training for some of an experiment's models."""

    when: Condition
    training: Training


@dataclasses.dataclass(frozen=True, kw_only=True)
class Experiment:
    """A product of axes with one set of attacks."""

    node: Node
    #: The values of each of MODEL_AXES, in this order.
    axes: dict[str, tuple[Any, ...]]
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
    """Every model once, in the order that Grid documents, with the attacks that are left after the exclusions."""

    models: dict[Model, Groups]
    #: For each model, the position of the experiment that asked for each of its attack choices first.
    origins: dict[Model, tuple[int, ...]]


def expand(top: Node, experiments: Sequence[Experiment], excludes: Sequence[Condition]) -> Expanded:
    """The models of all experiments.

    Raises GridError for a condition that matches nothing, a combination that does not fit, a cell that two places
    ask for, one model with two sets of resources, and a grid in which nothing is left.
    """
    problems = Problems()
    _refuse_idle(experiments, excludes, problems)
    problems.check()
    shared: dict[Hashable, Any] = {}
    asked: dict[Model, list[_Asked]] = {}
    for place, experiment in enumerate(experiments):
        with problems.kept():
            for model, groups in _Expansion(experiment, excludes, shared).models():
                asked.setdefault(model, []).append(_Asked(model, groups, experiment, place))
    problems.check()
    models: dict[Model, Groups] = {}
    origins: dict[Model, tuple[int, ...]] = {}
    for model, parts in asked.items():
        with problems.kept():
            models[model] = parts[0].groups if len(parts) == 1 else _joined(parts)
            first: dict[AttackChoice, int] = {}
            for part in parts:
                for choice, _ in part.groups:
                    first.setdefault(choice, part.place)
            origin = tuple(first[choice] for choice, _ in models[model])
            origins[model] = shared.setdefault(("origins", origin), origin)
    problems.check()
    if not models:
        raise top.error("expected a grid with a cell, got one whose exclusions leave none")
    return Expanded(models, origins)


class _Asked(NamedTuple):
    """What one experiment asks of a model."""

    model: Model
    groups: Groups
    experiment: Experiment
    place: int


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
    """The models of one experiment; what many of them have in common is made once."""

    def __init__(self, experiment: Experiment, excludes: Sequence[Condition], shared: dict[Hashable, Any]) -> None:
        self.experiment = experiment
        self._excludes = excludes
        #: Equal members of all experiments are one object.
        self._shared = shared
        self._trained: dict[tuple[int, ...], tuple[Training, FineTune, Stages]] = {}
        self._groups: dict[tuple[str, tuple[int, ...]], Groups] = {}

    def models(self) -> Iterator[tuple[Model, Groups]]:
        axes = [[self._share(value) for value in values] for values in self.experiment.axes.values()]
        for values in itertools.product(*axes):
            point = dict(zip(MODEL_AXES, values, strict=True))
            excludes = _matching(self._excludes, point)
            groups = self._left(point["task"].name, excludes)
            if groups:
                training, finetune, resources = self._training(point)
                _refuse_misfit(point, training, self.experiment.node)
                weights = self._share(training.weights[0]) if training.weights else None
                yield Model(**point, weights=weights, finetune=finetune, resources=resources), groups

    def _share(self, value: H) -> H:
        shared: H = self._shared.setdefault(value, value)
        return shared

    def _training(self, point: Mapping[str, Any]) -> tuple[Training, FineTune, Stages]:
        """The experiment's training under the overrides that match."""
        matching = _matching([override.when for override in self.experiment.overrides], point)
        if matching not in self._trained:
            training = self.experiment.training
            for at in matching:
                training = training.under(self.experiment.overrides[at].training)
            finetune = built(FineTune, "finetune", training.finetune, self.experiment.node)
            stages = self._share(_stages(training.resources))
            self._trained[matching] = (training, self._share(finetune), stages)
        return self._trained[matching]

    def _left(self, task: str, excludes: tuple[int, ...]) -> Groups:
        """The experiment's attacks without the cells that the exclusions admit; all of them must fit the task."""
        if (task, excludes) not in self._groups:
            conditions = [self._excludes[at] for at in excludes]
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
    """The resources of each stage: what is said of it goes before what is said of all."""
    given = {
        stage: {key: value for about in (None, stage) for (of, key), value in amounts.items() if of == about}
        for stage in STAGES
    }
    return Stages(**{stage: Resources(**amounts) for stage, amounts in given.items()})


def _matching(conditions: Sequence[Condition], point: Mapping[str, Any]) -> tuple[int, ...]:
    """Positions of the conditions that admit the model."""
    return tuple(
        at
        for at, condition in enumerate(conditions)
        if all(condition.admits(axis, value) for axis, value in point.items())
    )


def _refuse_misfit(point: Mapping[str, Any], training: Training, owner: Node) -> None:
    backbone, dataset = point["backbone"], point["dataset"]
    if dataset.size is not None and dataset.size < backbone.min_size:
        raise owner.error(
            f"expected images of at least {backbone.min_size} pixels for backbone {backbone.name!r}, got data set "
            f"{dataset.name!r} with size {dataset.size}"
        )
    if training.weights is not None:
        weights, node = training.weights
        if isinstance(weights, Weights) and weights.published and backbone.published is None:
            raise node.error(
                f"expected a path, pretrain or null for backbone {backbone.name!r}, which has no published weights, "
                f"got {weights.source!r}"
            )


def _joined(parts: Sequence[_Asked]) -> Groups:
    """The attacks of several experiments on one model, each cell asked for by one of them."""
    first = parts[0]
    cells: dict[AttackChoice, dict[Epsilon, Node | None]] = {}
    for part in parts:
        if part.model.resources != first.model.resources:
            raise part.experiment.node.error(
                f"expected equal resources for equal models, got {_amounts(part)} after {_amounts(first)} at "
                f"{first.experiment.node.where}"
            )
        for choice, epsilons in part.groups:
            there = cells.setdefault(choice, {})
            for epsilon in epsilons:
                place = part.experiment.attacks.cells[choice][epsilon]
                refuse_twice(choice, epsilon, place, there.get(epsilon))
                there[epsilon] = there.get(epsilon) or place
    return tuple((choice, tuple(epsilons)) for choice, epsilons in cells.items())


def _amounts(part: _Asked) -> str:
    """The part's resources in words: "gpu 1, cpu 4", and for each stage where they differ."""

    def words(resources: Resources) -> str:
        usual = Resources(gpu=resources.gpu, cpu=resources.cpu)
        shown = [f"gpu {resources.gpu if resources.gpu == 'auto' else format(resources.gpu, 'g')}"]
        shown.append(f"cpu {resources.cpu:g}")
        for name in ("accelerator_type", "minutes"):
            if getattr(resources, name) != getattr(usual, name):
                shown.append(f"{name} {getattr(resources, name)}")
        return ", ".join(shown)

    stages = {stage: words(part.model.resources.of(stage)) for stage in STAGES}
    if len(set(stages.values())) == 1:
        return stages["attack"]
    return "; ".join(f"{stage}: {amounts}" for stage, amounts in stages.items())

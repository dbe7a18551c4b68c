"""The product of each experiment's axes, its overrides and the exclusions: experiments in, models with attacks out."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from orchestrator.gridfile.attacks import refuse_twice
from orchestrator.gridfile.cells import AttackChoice, Epsilon, Groups, ModelChoice, Stages
from orchestrator.gridfile.conditions import Condition
from orchestrator.gridfile.experiment import Experiment
from orchestrator.gridfile.fits import refuse_idle_slopes, refuse_misfit, refuse_misfit_surrogates
from orchestrator.gridfile.nodes import Node, Problems
from orchestrator.gridfile.resources import by_stage, in_words
from orchestrator.gridfile.training import Training
from orchestrator.gridfile.values import MODEL_AXES, built
from signsym_core.training.settings import FineTune

H = TypeVar("H", bound=Hashable)


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
                refuse_misfit(point, training, finetune, self.experiment)
                refuse_idle_slopes(point["backbone"], groups, self.experiment)
                refuse_misfit_surrogates(point["backbone"], finetune, groups, self.experiment)
                weights = self._share(training.weights[0]) if training.weights else None
                other = _other_seed(point["seed"], axes[-1])
                model = ModelChoice(**point, weights=weights, finetune=finetune, resources=resources, other_seed=other)
                yield model, groups

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
            stages = self._share(by_stage(training.resources))
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


def _other_seed(seed: int, seeds: Sequence[int]) -> int | None:
    """The seed of surrogates of another seed than `seed`, which is one of `seeds`; see `ModelChoice`."""
    ordered = sorted(seeds)
    position = ordered.index(seed)
    return ordered[position - 1] if position else next(iter(ordered[1:]), None)


def _matching(conditions: Sequence[Condition], point: Mapping[str, Any]) -> tuple[int, ...]:
    """Positions of the conditions that match the model."""
    return tuple(
        position
        for position, condition in enumerate(conditions)
        if all(condition.admits(axis, value) for axis, value in point.items())
    )


def _refuse_other_seeds(request: _ModelRequest, requests: Sequence[_ModelRequest]) -> None:
    """Raise GridError where experiments with one model mean different seeds by another seed than the model's."""
    for one in requests:
        if one.model.other_seed != request.model.other_seed:
            seeds = [", ".join(map(str, r.experiment.axes["seed"])) for r in (request, one)]
            raise request.experiment.node.error(
                f"expected one list of seeds for a model with surrogates of another seed, got {seeds[0]} and, at "
                f"{one.experiment.node.where}, {seeds[1]}"
            )


def _joined(requests: Sequence[_ModelRequest]) -> Groups:
    """The attacks of several experiments on one model, each cell requested by one of them."""
    first = requests[0]
    cells: dict[AttackChoice, dict[Epsilon, Node | None]] = {}
    for request in requests:
        if request.model.resources != first.model.resources:
            amounts = [in_words(one.model.resources) for one in (request, first)]
            raise request.experiment.node.error(
                f"expected equal resources for equal models, got {amounts[0]} after {amounts[1]} at "
                f"{first.experiment.node.where}"
            )
        for choice, epsilons in request.groups:
            if choice.surrogate is not None and choice.surrogate.other_seed:
                _refuse_other_seeds(request, requests)
            places = cells.setdefault(choice, {})
            for epsilon in epsilons:
                place = request.experiment.attacks.cells[choice][epsilon]
                refuse_twice(choice, epsilon, place, places.get(epsilon))
                places[epsilon] = places.get(epsilon) or place
    return tuple((choice, tuple(epsilons)) for choice, epsilons in cells.items())

"""Cells to jobs: the missing jobs of a grid, each once, with their dependencies.

One fine-tune serves all attacks on its model; one attack job serves all epsilons of its attack. Jobs that are done in
the store are left out, so resuming, extending and retrying a grid are one operation.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Set
from typing import Any

from orchestrator.gridfile.cells import AttackChoice, Grid, ModelAttacks, ModelChoice
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job, Point
from orchestrator.plan import cost
from orchestrator.plan.trainings import Trainings, before
from signsym_core.attacks import GRADIENTS
from signsym_core.datasets import DataSource
from signsym_core.rules.bp import BP
from signsym_core.tasks import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs that a grid needs and the store lacks, parents before children, and all cells and fine-tunes."""

    grid: str
    #: The names of the grid's experiments.
    experiments: tuple[str, ...]
    jobs: Mapping[str, Job]
    #: Keys of all cells of the grid, and of those that the store holds.
    cells: Set[str]
    done: Set[str]
    #: Keys of all fine-tunes of the grid, done or not.
    finetunes: Set[str]

    @property
    def missing(self) -> int:
        """Number of cells without a result."""
        return len(self.cells) - len(self.done)


def compile_plan(grid: Grid, done_cells: Set[str], done_models: Set[str]) -> Plan:
    """The plan of `grid` for a store that holds `done_cells` and `done_models`."""
    planner = _Planner(done_cells, done_models)
    for run in grid.runs():
        planner.add(run)
    return Plan(
        grid=grid.name,
        experiments=grid.experiments,
        jobs=planner.jobs,
        cells=planner.cells,
        done=planner.cells & done_cells,
        finetunes=planner.finetunes,
    )


class _Planner:
    def __init__(self, done_cells: Set[str], done_models: Set[str]) -> None:
        self.done_cells, self.done_models = done_cells, done_models
        self.jobs: dict[str, Job] = {}
        self.cells: set[str] = set()
        self.finetunes: set[str] = set()
        #: Equal points of all jobs are one object: a grid has millions of cells and few epsilons.
        self._shared: dict[tuple[Point, ...], tuple[Point, ...]] = {}
        #: Data sets that a job of the plan decodes.
        self._decoded: set[DataSource] = set()
        self._trainings = Trainings()

    def add(self, request: ModelAttacks) -> None:
        model = request.model
        finetune = self._trainings.job("finetune", model, request.origins[0])
        self.finetunes.add(finetune.key)
        twin: Job | None = None
        attacks: dict[str, _MissingAttack] = {}
        for (choice, epsilons), origin in zip(request.attacks, request.origins, strict=True):
            # Under some rules two sources of gradients are equal: computed once, reported under both names. Under BP
            # the twin that was fine-tuned with BP is the attacked model, so that a transfer attack is a white-box one.
            source = GRADIENTS.get(choice.gradient)
            computed = choice.gradient if source is None else source.computed(model.rule)
            version = keys.attack_semantics(choice.attack.name)
            spec: dict[str, Any] = {"kind": "attack", "semantics": version, "model": finetune.key}
            spec |= {"attack": self._trainings.described(choice.attack), "gradient": computed, "images": choice.images}
            spec |= {"seed": model.seed} | _score(model.task)
            if computed in GRADIENTS and GRADIENTS[computed].twin:
                twin = twin or self._trainings.job("finetune", dataclasses.replace(model, rule=BP()), origin)
                spec |= {"surrogate": twin.key}
            base = keys.canonical(spec)
            cell_key = keys.cell_keys(base)
            job = attacks.setdefault(base, _MissingAttack(spec=spec, choice=choice, experiment=origin))
            for epsilon in epsilons:
                cell = cell_key(choice.gradient, epsilon.value)
                self.cells.add(cell)
                if cell not in self.done_cells:
                    job.cells.append(cell)
                    job.points.append((choice.gradient, epsilon.value, epsilon.label))
        missing = [job for job in attacks.values() if job.cells]
        if missing:
            self._need(finetune, model)
        if twin is not None:
            self.finetunes.add(twin.key)
            if any("surrogate" in job.spec for job in missing):
                self._need(twin, model)
        for job in missing:
            self._attack(job, finetune, model)

    def _need(self, training: Job, model: ModelChoice) -> None:
        """Add a fine-tune and the trainings before it, unless they are done or planned already."""
        if training.key in self.done_models or training.key in self.jobs:
            return
        earlier = before(model)
        if earlier is not None:
            self._need(self._trainings.job(*earlier, training.experiment), earlier[1])
        self.jobs[training.key] = dataclasses.replace(training, loading=self._loading(model))

    def _loading(self, model: ModelChoice) -> float:
        if model.dataset in self._decoded:
            return 0.0
        self._decoded.add(model.dataset)
        return cost.decoding(model.dataset, model.resources.finetune)

    def _attack(self, attack: _MissingAttack, finetune: Job, model: ModelChoice) -> None:
        spec, points = attack.spec, tuple(attack.points)
        key = keys.key(spec | {"cells": sorted(attack.cells)})
        name, resources = spec["attack"]["name"], model.resources.attack
        epsilons = {epsilon for _, epsilon, _ in points}
        above = sum(epsilon > 0 for epsilon in epsilons)
        passes = cost.passes(attack.choice.attack, spec["gradient"], above, len(epsilons) > above)
        network, images = cost.network_at(model.backbone, model.dataset), cost.attacked(spec["images"], model.dataset)
        device, precision = cost.device_of(resources), attack.choice.attack.precision
        seconds = cost.attacking(network, passes, images, precision, device)
        self.jobs[key] = Job(
            key=key,
            kind="attack",
            parents=tuple(dict.fromkeys((finetune.key, spec.get("surrogate", finetune.key)))),
            spec=spec | {"points": self._shared.setdefault(points, points)},
            resources=resources,
            title=f"attack {name} {spec['gradient']}: {finetune.title.removeprefix('finetune ')}",
            group=("attack", model.backbone.name, model.dataset.name, name),
            default_seconds=seconds / cost.gpu_fraction(resources),
            pace=cost.pace("attack", resources, precision, model.backbone.name, name),
            memory=cost.attack_memory(model.backbone, model.dataset, resources),
            experiment=attack.experiment,
        )


def _score(task: Task) -> dict[str, Any]:
    """The parameters of the task that only decide a score, for an attack's key; empty where there are none."""
    return {"score": {name: getattr(task, name) for name in sorted(task.scoring)}} if task.scoring else {}


@dataclasses.dataclass(kw_only=True)
class _MissingAttack:
    """One attack on one model, with the cells that the store lacks."""

    spec: dict[str, Any]
    choice: AttackChoice
    experiment: int
    cells: list[str] = dataclasses.field(default_factory=list)
    points: list[Point] = dataclasses.field(default_factory=list)

"""Cells to jobs: which jobs a grid still needs, each once, with what it depends on.

One fine-tune serves all attacks on its model; one attack job serves all epsilons of its attack. What the store holds
already is left out, so resuming, extending and retrying a grid are one operation.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping, Set
from pathlib import Path
from typing import Any

from orchestrator.gridfile.cells import AttackChoice, Grid, Model, Pretrain, Run, Weights
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job, Point
from orchestrator.plan import cost
from signsym_core.attacks import GRADIENTS
from signsym_core.registry import identity
from signsym_core.rules.bp import BP
from signsym_core.tasks import Task
from signsym_core.tasks.classification import Classification


class PlanError(ValueError):
    """A grid that is well-formed and cannot be run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs that a grid needs and the store lacks, parents before children, and what the whole grid has."""

    grid: str
    #: What the grid's experiments are called.
    experiments: tuple[str, ...]
    jobs: Mapping[str, Job]
    #: Keys of all cells of the grid, and of those among them that the store holds.
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

    def add(self, run: Run) -> None:
        model = run.model
        finetune = self._finetune(model, run.origins[0])
        self.finetunes.add(finetune.key)
        twin: Job | None = None
        wanted: dict[str, _Wanted] = {}
        for (choice, epsilons), origin in zip(run.attacks, run.origins, strict=True):
            # Under some rules two sources are the same one: computed once, reported under both names. Under BP the
            # twin that was fine-tuned with BP is the model itself, so that a transfer is no transfer.
            source = GRADIENTS.get(choice.gradient)
            computed = choice.gradient if source is None else source.computed(model.rule)
            spec: dict[str, Any] = {"kind": "attack", "semantics": keys.SEMANTICS["attack"], "model": finetune.key}
            spec |= {"attack": keys.described(choice.attack), "gradient": computed, "images": choice.images}
            spec |= {"seed": model.seed} | _score(model.task)
            if computed in GRADIENTS and GRADIENTS[computed].twin:
                twin = twin or self._finetune(dataclasses.replace(model, rule=BP()), origin)
                spec |= {"surrogate": twin.key}
            base = keys.canonical(spec)
            cell_key = keys.cell_keys(base)
            job = wanted.setdefault(base, _Wanted(spec=spec, choice=choice, experiment=origin))
            for epsilon in epsilons:
                cell = cell_key(choice.gradient, epsilon.value)
                self.cells.add(cell)
                if cell not in self.done_cells:
                    job.cells.append(cell)
                    job.points.append((choice.gradient, epsilon.value, epsilon.label))
        asked = [job for job in wanted.values() if job.cells]
        if asked:
            self._need(finetune, model)
        if twin is not None:
            self.finetunes.add(twin.key)
            if any("surrogate" in job.spec for job in asked):
                self._need(twin, model)
        for job in asked:
            self._attack(job, finetune, model)

    def _need(self, finetune: Job, model: Model) -> None:
        """Add a fine-tune and the pre-training before it, unless they are done or there already."""
        if finetune.key in self.done_models or finetune.key in self.jobs:
            return
        if isinstance(model.weights, Pretrain):
            parent = _pretrain(model, model.weights, finetune.experiment)
            if parent.key not in self.done_models:
                self.jobs.setdefault(parent.key, parent)
        self.jobs[finetune.key] = finetune

    def _finetune(self, model: Model, experiment: int) -> Job:
        weights, parent = _weights(model)
        spec: dict[str, Any] = {"kind": "finetune", "semantics": keys.SEMANTICS["finetune"], "weights": weights}
        spec |= {name: keys.described(getattr(model, name)) for name in ("dataset", "backbone", "rule")}
        spec |= {"task": _learned(model.task)}
        spec |= {"seed": model.seed, "finetune": identity(model.finetune)}
        title = f"finetune {model.rule.name} {model.backbone.name} {model.dataset.name} seed {model.seed}"
        # A weights file counts by its content, wherever it lies.
        content = None if weights is None else {name: value for name, value in weights.items() if name != "file"}
        return Job(
            key=keys.key(spec | {"weights": content}),
            kind="finetune",
            parents=() if parent is None else (parent,),
            spec=spec,
            resources=model.resources.finetune,
            title=title,
            group=("finetune", model.backbone.name, model.dataset.name),
            guess=cost.training(model.backbone, model.dataset, model.finetune, model.resources.finetune),
            memory=cost.training_memory(model.backbone, model.dataset, model.finetune, model.resources.finetune),
            experiment=experiment,
        )

    def _attack(self, wanted: _Wanted, finetune: Job, model: Model) -> None:
        spec, points = wanted.spec, tuple(wanted.points)
        key = keys.key(spec | {"cells": sorted(wanted.cells)})
        name = spec["attack"]["name"]
        self.jobs[key] = Job(
            key=key,
            kind="attack",
            parents=tuple(dict.fromkeys((finetune.key, spec.get("surrogate", finetune.key)))),
            spec=spec | {"points": self._shared.setdefault(points, points)},
            resources=model.resources.attack,
            title=f"attack {name} {spec['gradient']}: {finetune.title.removeprefix('finetune ')}",
            group=("attack", model.backbone.name, model.dataset.name, name),
            guess=cost.attacking(wanted.choice, len(points), model),
            memory=cost.attack_memory(model.backbone, model.dataset, model.resources.attack),
            experiment=wanted.experiment,
        )


def _learned(task: Task) -> dict[str, Any]:
    """The task as a fine-tune depends on it: without what only decides a score."""
    described = keys.described(task)
    kept = {name: value for name, value in described["parameters"].items() if name not in task.scoring}
    return {"name": task.name, "parameters": kept}


def _score(task: Task) -> dict[str, Any]:
    """What of the task only decides a score, for an attack's key; nothing where there is nothing."""
    return {"score": {name: getattr(task, name) for name in sorted(task.scoring)}} if task.scoring else {}


@dataclasses.dataclass(kw_only=True)
class _Wanted:
    """What the store lacks of one attack on one model."""

    spec: dict[str, Any]
    choice: AttackChoice
    experiment: int
    cells: list[str] = dataclasses.field(default_factory=list)
    points: list[Point] = dataclasses.field(default_factory=list)


def _pretrain(model: Model, pretrain: Pretrain, experiment: int) -> Job:
    spec: dict[str, Any] = {"kind": "pretrain", "semantics": keys.SEMANTICS["pretrain"]}
    # Whatever comes later, a body is pre-trained on classes.
    spec |= {"task": keys.described(Classification()), "dataset": keys.described(pretrain.dataset)}
    spec |= {"backbone": keys.described(model.backbone), "seed": pretrain.seed}
    spec |= {"finetune": identity(pretrain.settings)}
    title = f"pretrain {model.backbone.name} {pretrain.dataset.name} seed {pretrain.seed}"
    return Job(
        key=keys.key(spec),
        kind="pretrain",
        parents=(),
        spec=spec,
        resources=model.resources.pretrain,
        title=title,
        group=("pretrain", model.backbone.name, pretrain.dataset.name),
        guess=cost.training(model.backbone, pretrain.dataset, pretrain.settings, model.resources.pretrain),
        memory=cost.training_memory(model.backbone, pretrain.dataset, pretrain.settings, model.resources.pretrain),
        experiment=experiment,
    )


def _weights(model: Model) -> tuple[dict[str, Any] | None, str | None]:
    """What the weights are, for the key, and the key of the job that makes them."""
    if isinstance(model.weights, Pretrain):
        parent = _pretrain(model, model.weights, 0).key
        return {"pretrain": parent}, parent
    if isinstance(model.weights, Weights):
        if model.weights.published:
            return {"published": model.weights.source}, None
        path = Path(model.weights.source).expanduser().resolve()
        return {"file": str(path), "sha256": _digest(path)}, None
    return None, None


def _digest(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PlanError(f"weights file {path} cannot be read ({error.strerror}); name a file that exists") from None

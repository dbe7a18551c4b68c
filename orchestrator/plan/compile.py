"""Cells to jobs: the jobs of a grid, each once, with their dependencies.

One fine-tune serves all attacks on its model; one attack job serves all epsilons of its attack. What is done in a store
is left out afterwards (see `orchestrator.plan.full`), so resuming, extending and retrying a grid are one operation.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Set
from typing import Any

from orchestrator.gridfile.cells import AttackChoice, Grid, ModelAttacks, ModelChoice
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job, Point, Resources, Stage
from orchestrator.plan import cost
from orchestrator.plan.full import AttackCells, FullPlan, attack_key, seconds_of
from orchestrator.plan.full import Plan as Plan
from orchestrator.plan.rates import Network
from orchestrator.plan.titles import told_apart
from orchestrator.plan.trainings import Trainings, before
from signsym_core.attacks import GRADIENTS, Attack
from signsym_core.datasets import DataSource
from signsym_core.registry import identity
from signsym_core.rules.bp import BP
from signsym_core.tasks import Task


def compile_plan(grid: Grid, done_cells: Set[str], done_models: Set[str]) -> Plan:
    """The plan of `grid` for a store that holds `done_cells` and `done_models`."""
    return compile_full(grid).left(done_cells, done_models)


def compile_full(grid: Grid) -> FullPlan:
    """Every job of `grid`, as if nothing were done."""
    planner = _Planner()
    for run in grid.runs():
        planner.add(run)
    return FullPlan(
        grid=grid.name,
        experiments=grid.experiments,
        callbacks=grid.callbacks,
        notices=grid.notices,
        jobs=told_apart(planner.jobs),
        attacks=planner.attacks,
        finetunes=planner.finetunes,
        retrieving=planner.retrieving,
    )


def compile_job(grid: Grid, key: str, seed: int) -> Mapping[str, Job]:
    """The attack job `key` of a grid, which is on a model of this seed, and those before it, without their titles.

    The models before its own are planned, and those of other seeds are not: a whole grid takes seconds.
    """
    planner = _Planner()
    for run in grid.runs():
        if run.model.seed == seed and key not in planner.jobs:
            planner.add(run)
    return planner.jobs


class _Planner:
    def __init__(self) -> None:
        self.jobs: dict[str, Job] = {}
        self.attacks: dict[str, AttackCells] = {}
        self.finetunes: set[str] = set()
        self.retrieving: set[str] = set()
        #: Equal points of all jobs are one object: a grid has millions of cells and few epsilons.
        self._shared: dict[tuple[Point, ...], tuple[Point, ...]] = {}
        self._trainings = Trainings()

    def add(self, request: ModelAttacks) -> None:
        model = request.model
        finetune = self._trained("finetune", model, request.origins[0])
        self.finetunes.add(finetune.key)
        attacks: dict[str, _Attack] = {}
        tested = _score(model.task) | _test(model.dataset)
        for (choice, epsilons), origin in zip(request.attacks, request.origins, strict=True):
            computed, surrogate = _computed(choice, model)
            version = keys.attack_semantics(choice.attack, model.dataset.several)
            spec: dict[str, Any] = {"kind": "attack", "semantics": version, "model": finetune.key}
            spec |= {"attack": self._trainings.described(choice.attack), "gradient": computed, "images": choice.images}
            spec |= {"seed": model.seed} | tested
            if surrogate is not None:
                trained = self._trained("finetune", surrogate, origin)
                self.finetunes.add(trained.key)
                spec |= {"surrogate": trained.key}
            base = keys.canonical(spec)
            cell_key = keys.cell_keys(base)
            attack = attacks.setdefault(base, _Attack(spec=spec, choice=choice, experiment=origin))
            for epsilon in epsilons:
                attack.cells.append(cell_key(choice.source, epsilon.value))
                attack.points.append((choice.source, epsilon.value, epsilon.label))
        for attack in attacks.values():
            self._attack(attack, finetune, model)

    def _trained(self, kind: Stage, model: ModelChoice, experiment: int) -> Job:
        """The job of a training, which is added with the trainings before it unless it is there."""
        training = self._trainings.job(kind, model, experiment)
        if training.key not in self.jobs:
            if (earlier := before(model)) is not None:
                self._trained(*earlier, experiment)
            self.retrieving |= {training.key} if model.task.retrieves else set()
            decoding = cost.decoding(model.dataset, model.resources.finetune)
            self.jobs[training.key] = dataclasses.replace(training, loading=decoding)
        return training

    def _attack(self, attack: _Attack, finetune: Job, model: ModelChoice) -> None:
        spec, points = attack.spec, tuple(attack.points)
        key, name, resources = attack_key(spec, attack.cells), spec["attack"]["name"], model.resources.attack
        # A job has one surrogate; the model itself, under whatever name, is none.
        named = attack.choice.source if "surrogate" in spec else spec["gradient"]
        gradient = "" if named == "none" else f" {named}"
        seconds = _seconds(
            attack.choice.attack,
            spec["gradient"],
            len({epsilon for _, epsilon, _ in points if epsilon > 0}),
            any(epsilon == 0 for _, epsilon, _ in points),
            cost.network_at(model.backbone, model.dataset),
            cost.attacked(spec["images"], model.dataset),
            resources,
        )
        self.attacks[key] = AttackCells(cells=tuple(attack.cells), seconds=seconds)
        self.jobs[key] = Job(
            key=key,
            kind="attack",
            parents=tuple(dict.fromkeys((finetune.key, spec.get("surrogate", finetune.key)))),
            spec=spec | {"points": self._shared.setdefault(points, points)},
            resources=resources,
            title=f"attack {name}{gradient}: {finetune.title.removeprefix('finetune ')}",
            group=("attack", model.backbone.name, model.dataset.name, name),
            default_seconds=seconds_of(seconds, points),
            pace=cost.pace("attack", resources, attack.choice.attack.precision, model.backbone.name, name),
            memory=cost.attack_memory(model.backbone, model.dataset, resources),
            experiment=attack.experiment,
        )


def _computed(choice: AttackChoice, model: ModelChoice) -> tuple[str, ModelChoice | None]:
    """The source of gradient that an attack on `model` follows, and the surrogate, where that is another model.

    Under some rules two sources are equal: computed once, reported under both names. A surrogate that is the attacked
    model, such as the BP twin of a model of BP, makes a transfer attack a white-box one along the exact gradient.
    """
    if choice.surrogate is not None:
        seed = model.other_seed if choice.surrogate.other_seed else model.seed
        assert seed is not None, "the grid file's reader refuses another seed where there is one"
        other = dataclasses.replace(model, rule=choice.surrogate.rule, seed=seed)
        return ("exact", None) if other == model else (choice.gradient, other)
    source = GRADIENTS.get(choice.gradient)
    computed = choice.gradient if source is None else source.computed(model.rule)
    twin = computed in GRADIENTS and GRADIENTS[computed].twin
    return computed, dataclasses.replace(model, rule=BP()) if twin else None


@functools.lru_cache(maxsize=4096)
def _seconds(
    attack: Attack, gradient: str, above: int, clean: bool, network: Network, images: int, resources: Resources
) -> tuple[tuple[float, ...], ...]:
    """Estimated seconds of an attack job, by what is left of so many epsilons `above` 0 and, with `clean`, of 0."""

    def seconds(count: int, zero: bool) -> float:
        if not count and not zero:
            return 0.0
        passes, device = cost.passes(attack, gradient, count, zero), cost.device_of(resources)
        return cost.attacking(network, passes, images, attack.precision, device) / cost.gpu_fraction(resources)

    return tuple(tuple(seconds(count, zero) for count in range(above + 1)) for zero in (False, True)[: 1 + clean])


def _score(task: Task) -> dict[str, Any]:
    """The parameters of the task that only decide a score, for an attack's key; empty where there are none."""
    return {"score": {name: getattr(task, name) for name in sorted(task.scoring)}} if task.scoring else {}


def _test(dataset: DataSource) -> dict[str, Any]:
    """The parameters of the data set that only choose test images, for an attack's key; empty where all are neutral."""
    if not dataset.testing:
        return {}
    chosen = {name: value for name, value in identity(dataset).items() if name in dataset.testing}
    return {"test": chosen} if chosen else {}


@dataclasses.dataclass(kw_only=True)
class _Attack:
    """One attack on one model, with its cells."""

    spec: dict[str, Any]
    choice: AttackChoice
    experiment: int
    cells: list[str] = dataclasses.field(default_factory=list)
    points: list[Point] = dataclasses.field(default_factory=list)

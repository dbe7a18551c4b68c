"""Pre-trainings and fine-tunes as jobs: what each depends on, the training before it, and its estimated cost."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from orchestrator.gridfile.cells import ModelChoice, Pretrain, Weights
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job, Stage
from orchestrator.plan import cost
from orchestrator.plan.full import PlanError
from signsym_core import seal
from signsym_core.datasets import DataSource
from signsym_core.registry import Member, identity
from signsym_core.rules.bp import BP
from signsym_core.tasks import Task
from signsym_core.tasks.classification import Classification


class Trainings:
    """Makes the jobs of a grid's trainings."""

    def __init__(self) -> None:
        #: What keys hold of each object of the grid, which is one for all models that have it.
        self._identities: dict[int, tuple[object, dict[str, Any]]] = {}

    def job(self, kind: Stage, model: ModelChoice, experiment: int) -> Job:
        """The job that trains `model`: a fine-tune, or a pre-training, whose keys lack what it lacked once."""
        weights, parent = self._weights(model)
        # A weights file is identified by its content, not by its path.
        content = None if weights is None else {name: value for name, value in weights.items() if name != "file"}
        finetune, adversarial = self._identity(model.finetune), model.finetune.adversarial
        against = None if adversarial is None else adversarial.attack
        version = keys.training_semantics(kind, against, model.dataset.several)
        spec: dict[str, Any] = {"kind": kind, "semantics": version}
        spec |= {"dataset": self._trained_on(model.dataset), "backbone": self.described(model.backbone)}
        spec |= {"task": self._learned(model.task), "seed": model.seed, "finetune": finetune}
        rule = "" if kind == "pretrain" and model.rule == BP() else f"{model.rule.name} "
        spec |= {"rule": self.described(model.rule)} if rule else {}
        spec |= {"weights": weights} if kind == "finetune" or weights is not None else {}
        key = keys.key(spec | ({"weights": content} if "weights" in spec else {}))
        spec |= self._started(model)
        resources, precision = model.resources.of(kind), model.finetune.precision
        seconds = cost.training(model.task, model.backbone, model.dataset, model.finetune, cost.device_of(resources))
        return Job(
            key=key,
            kind=kind,
            parents=() if parent is None else (parent,),
            spec=spec,
            resources=resources,
            title=f"{kind} {rule}{model.backbone.name} {model.dataset.name} seed {model.seed}",
            group=(kind, model.backbone.name, model.dataset.name),
            default_seconds=seconds / cost.gpu_fraction(resources),
            pace=cost.pace("training", resources, precision, model.backbone.name, model.rule.name),
            memory=cost.training_memory(model.backbone, model.dataset, model.finetune, resources),
            experiment=experiment,
        )

    def _weights(self, model: ModelChoice) -> tuple[dict[str, Any] | None, str | None]:
        """The description of the weights for a key, and the key of the job that trains them."""
        earlier = before(model)
        if earlier is not None:
            parent = self.job(*earlier, 0).key
            return {"pretrain": parent} | ({"head": "keep"} if earlier[0] == "finetune" else {}), parent
        if isinstance(model.weights, Weights):
            if model.weights.published:
                return {"published": model.weights.source}, None
            path = Path(model.weights.source).expanduser().resolve()
            return {"file": str(path), "sha256": _digest(path, model.weights.where)}, None
        return None, None

    def _started(self, model: ModelChoice) -> dict[str, str]:
        """Of a training that goes on from one of its own seed, the key that this has at seed 0: no part of its own key,
        but what columns of results name it by, so that models which differ in their seed alone are one model there.
        """
        start = model.weights
        if not isinstance(start, Pretrain) or start.seed is not None:
            return {}
        earlier = before(dataclasses.replace(model, seed=0))
        assert earlier is not None, "it starts from a training"
        return {"started": self.job(*earlier, 0).key}

    def _learned(self, task: Task) -> dict[str, Any]:
        """The task as a fine-tune depends on it: without the parameters that only decide a score."""
        described = self.described(task)
        kept = {name: value for name, value in described["parameters"].items() if name not in task.scoring}
        return {"name": task.name, "parameters": kept}

    def _trained_on(self, dataset: DataSource) -> dict[str, Any]:
        """The data set as a fine-tune depends on it: without the parameters that only choose test images."""
        described = self.described(dataset)
        kept = {name: value for name, value in described["parameters"].items() if name not in dataset.testing}
        return {"name": dataset.name, "parameters": kept}

    def described(self, member: Member) -> dict[str, Any]:
        """`keys.described`, computed once for each object."""
        return {"name": member.name, "parameters": self._identity(member)}

    def _identity(self, settings: object) -> dict[str, Any]:
        if id(settings) not in self._identities:
            # The object is kept, so that no other one gets its number.
            self._identities[id(settings)] = settings, identity(settings)
        return self._identities[id(settings)][1]


def before(model: ModelChoice) -> tuple[Stage, ModelChoice] | None:
    """What is trained before `model`, and as which kind of job; None where nothing is."""
    start = model.weights
    if not isinstance(start, Pretrain):
        return None
    seed = model.seed if start.seed is None else start.seed
    settings: dict[str, Any] = {"dataset": start.dataset, "rule": start.rule, "seed": seed, "weights": start.weights}
    settings |= {"finetune": start.settings}
    if start.head == "keep":
        # The same job as that of the row that attacks it.
        return "finetune", dataclasses.replace(model, **settings)
    # Whatever the fine-tune's task, a body is pre-trained on classification.
    return "pretrain", dataclasses.replace(model, task=Classification(), **settings)


def _digest(path: Path, where: str) -> str:
    place = f"{where}: " if where else ""
    try:
        data = path.read_bytes()
        seal.check(data)
        return hashlib.sha256(data).hexdigest()
    except seal.DamagedError as error:
        raise PlanError(f"{place}weights file {path} is {error}; copy or export it anew") from None
    except OSError as error:
        expected = "name a file that exists, one of torchvision's published weights in capitals, or null"
        raise PlanError(f"{place}weights file {path} cannot be read ({error.strerror}); {expected}") from None

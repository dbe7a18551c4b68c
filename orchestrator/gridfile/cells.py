"""The content of a grid: models to fine-tune, and for each the attacks and epsilons to run on it.

A cell is one point of a grid. A grid has no list of cells: it keeps the attacks of each model in groups that models
share, so a grid of millions of cells stays small.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

from orchestrator.gridfile.callbacks import CallbackChoice
from orchestrator.jobs.job import Resources, Stage
from orchestrator.jobs.surrogates import source_name
from signsym_core.attacks import Attack
from signsym_core.backbones import Backbone
from signsym_core.datasets import DataSource
from signsym_core.rules import Rule
from signsym_core.rules.bp import BP
from signsym_core.tasks import Task
from signsym_core.training.settings import FineTune

#: The gradient of an attack that uses none.
NO_GRADIENT = "none"

#: What becomes of the head of a training before.
Head = Literal["fresh", "keep"]

_PUBLISHED = re.compile("[A-Z][A-Z0-9_]*")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epsilon:
    """A radius in the [0, 1] pixel range. Two are equal when their values are: "1/2" is 0.5."""

    #: The text of the grid: a fraction as it was written, a number in its shortest decimal digits ("0.001", "0", "1").
    label: str = dataclasses.field(compare=False)
    value: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Surrogate:
    """The model that a transfer attack makes its examples on: the attacked one, trained by `rule`."""

    rule: Rule
    #: Whether it is of another seed than the attacked model: see `ModelChoice.other_seed`.
    other_seed: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackChoice:
    """An attack, the source of its gradient and the number of images: a cell without its model and epsilon."""

    attack: Attack
    #: A name of `signsym_core.attacks.GRADIENTS`, or NO_GRADIENT for an attack that is not white-box.
    gradient: str
    #: At most this many test images; None: all.
    images: int | None
    #: None: for a gradient that needs one, the twin that was fine-tuned with BP from the same seed.
    surrogate: Surrogate | None = None

    @property
    def source(self) -> str:
        """The source of its gradient as results name it: with the surrogate, unless that is the BP twin."""
        if self.surrogate is None:
            return self.gradient
        rule = self.surrogate.rule
        return source_name(rule.name, rule.changed(), self.surrogate.other_seed)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Weights:
    """Weights to start from: the name of torchvision's published ones, or the path of a file."""

    source: str
    #: The place in the grid file, for an error about the file.
    where: str = dataclasses.field(default="", compare=False)

    @property
    def published(self) -> bool:
        """Whether `source` is a name, which has capitals, digits and underscores only."""
        return _PUBLISHED.fullmatch(self.source) is not None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pretrain:
    """Weights to start from: those of a training before.

    With the head `fresh` it trains classification, and its body is taken; with `keep` it is the fine-tune of the same
    task, and the whole network goes on.
    """

    dataset: DataSource
    settings: FineTune
    #: None: the seed of the fine-tune that goes on.
    seed: int | None
    rule: Rule = BP()  # noqa: RUF009, a frozen value
    head: Head = "fresh"
    #: What the training before started from.
    weights: Weights | Pretrain | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stages:
    """The resources of the jobs of a model, by their kind."""

    pretrain: Resources
    finetune: Resources
    attack: Resources

    def of(self, stage: Stage) -> Resources:
        """The resources of a job of the kind `stage`."""
        resources: Resources = getattr(self, stage)
        return resources


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelChoice:
    """The settings of one fine-tune. Models that differ only in their resources are equal."""

    task: Task
    dataset: DataSource
    backbone: Backbone
    rule: Rule
    seed: int
    #: None: the fine-tune starts from fresh weights.
    weights: Weights | Pretrain | None
    finetune: FineTune
    resources: Stages = dataclasses.field(compare=False)
    #: The seed of surrogates of another seed: the next smaller one in its experiment's list, and for the smallest the
    #: next larger one, so that a larger seed is added without a change of surrogates. None where the list has one seed.
    other_seed: int | None = dataclasses.field(default=None, compare=False)


#: Attack choices, each with its epsilons.
Groups = tuple[tuple[AttackChoice, tuple[Epsilon, ...]], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelAttacks:
    """A model with all of its attacks in the grid."""

    model: ModelChoice
    attacks: Groups
    #: For each attack choice, the position of the first experiment that contains it.
    origins: tuple[int, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """One point of a grid."""

    model: ModelChoice
    choice: AttackChoice
    epsilon: Epsilon


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """A grid with every name, default, override and exclusion resolved.

    The order is that of the file. Models: the experiments one after the other; in each the product of its axes with
    the task outermost, then dataset, backbone, rule, and the seed innermost. Cells of a model: the clean one, then
    the attacks item by item, in an item the names, then the gradients, then the epsilons. A model that a later
    experiment repeats keeps its first position, and that experiment's attacks are appended to it. Epsilons of one
    attack choice are adjacent.
    """

    name: str
    #: Each model once, with its attacks; a model whose cells are all excluded is left out.
    models: Mapping[ModelChoice, Groups]
    #: The names of the experiments, in the file's order: "1: classification, cifar10".
    experiments: tuple[str, ...]
    #: For each model, the position of the first experiment that contains each of its attack choices.
    origins: Mapping[ModelChoice, tuple[int, ...]]
    #: Callbacks of experiment trackers.
    callbacks: tuple[CallbackChoice, ...]
    source: Path
    #: The text of the file.
    text: str
    #: The settings KEY=VALUE that replace values of the file.
    sets: tuple[str, ...]
    #: What it asks for in vain, in sentences with file and line.
    notices: tuple[str, ...] = ()

    def runs(self) -> Iterator[ModelAttacks]:
        """The models with their attacks, in the grid's order."""
        for model, attacks in self.models.items():
            yield ModelAttacks(model=model, attacks=attacks, origins=self.origins[model])

    def cells(self) -> Iterator[Cell]:
        """Every cell once, in the grid's order."""
        for model, attacks in self.models.items():
            for choice, epsilons in attacks:
                for epsilon in epsilons:
                    yield Cell(model=model, choice=choice, epsilon=epsilon)

    def __len__(self) -> int:
        """The number of cells."""
        return sum(len(epsilons) for attacks in self.models.values() for _, epsilons in attacks)

"""The interface of a task: the size of the head, the training loss, the loss to attack, and the score of an image."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import Tensor, nn

from signsym_core.registry import Member
from signsym_core.retrieval.codes import Gallery


class Objective(nn.Module, ABC):
    """The loss that training minimises. It may have trainable parameters, which scoring does not use."""

    #: Learning rate of the objective's parameters.
    lr: float = 0.0

    def __call__(self, outputs: Tensor, labels: Tensor) -> Tensor:
        loss: Tensor = super().__call__(outputs, labels)
        return loss

    @abstractmethod
    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch: a scalar, a mean in some sense, so that it does not grow with the batch."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Member, ABC):
    """A task. Outputs are those of the model's head, [n, outputs].

    Labels are as the data set has them: int64 [n], or 0/1 [n, classes] where an image has several.
    """

    #: Name of the score as the results store it.
    metric: ClassVar[str]
    #: Whether images are scored by the items that they retrieve, which needs a gallery.
    retrieves: ClassVar[bool] = False
    #: Parameters that affect only the score: tasks that differ only in these share their fine-tunes.
    scoring: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """Width of the head for a data set of so many classes."""

    @abstractmethod
    def objective(self, classes: int, seed: int) -> Objective:
        """The training loss, its parameters initialised from `seed`."""

    @abstractmethod
    def attack_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss that an attack maximises: a scalar, the sum over the images, so that images are independent."""

    @abstractmethod
    def score(self, outputs: Tensor, labels: Tensor, gallery: Gallery | None) -> Tensor:
        """float64 [n] in 0 .. 1: how well each image is handled. Its mean is the metric."""

    def decided(self, labels: Tensor) -> Tensor:
        """bool [n]: whether the labels alone decide an image's score, whatever the outputs: no gradient can matter."""
        return torch.zeros(len(labels), dtype=torch.bool, device=labels.device)

    def validate(self, outputs: Tensor, labels: Tensor, generator: torch.Generator) -> float:
        """The score 0 .. 1 of validation images, which chooses among epochs; `generator` is what it may draw from.

        It must not depend on the parameters of `scoring`, which no training depends on.
        """
        return float(self.score(outputs, labels, None).mean())

    @abstractmethod
    def predict(self, outputs: Tensor, gallery: Gallery | None) -> Tensor:
        """int64 [n]: the predicted class of each image; -1 where there is none."""

    def confidence(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """float64 [n]: the probability of the class that each image is given; None where outputs give none."""
        return None

    @abstractmethod
    def chance(self, labels: Tensor, gallery: Gallery | None) -> float:
        """The metric of a model that gives every image the same output, the best one."""

    @abstractmethod
    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError where outputs and labels do not fit each other."""

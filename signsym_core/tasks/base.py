"""What a task is: the size of the head, the loss to train with, the loss to attack, and the score of one image."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor

from signsym_core.registry import Member


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task(Member, ABC):
    """A task. Outputs are what the model's head gives, [n, outputs]; labels are as the data set has them."""

    #: Name of the score as the results store it.
    metric: ClassVar[str]

    @abstractmethod
    def outputs(self, classes: int) -> int:
        """Width of the head for a data set of so many classes."""

    @abstractmethod
    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss to minimise in training: a scalar, the mean over the batch."""

    @abstractmethod
    def attack_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """The loss that an attack maximises: a scalar, the sum over the images, so that no image scales another."""

    @abstractmethod
    def correct(self, outputs: Tensor, labels: Tensor) -> Tensor:
        """bool[n]: whether each image is handled rightly."""

    @abstractmethod
    def check(self, outputs: Tensor, labels: Tensor) -> None:
        """Raise ValueError where outputs and labels do not fit each other."""

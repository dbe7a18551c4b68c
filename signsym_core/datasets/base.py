"""What a data set is: images decoded once to uint8, labels, and how a batch of them becomes a model's input.

Legend: images uint8 [n, channels, height, width]; batches float32 [b, channels, size, size] in [0, 1].
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.registry import Member, ParameterError, require


class DataNotFoundError(FileNotFoundError):
    """A data set's files are not where they should be; the message says where to put them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Images and their labels, on one device."""

    images: Tensor
    labels: Tensor
    #: Index of each image in the data set's own order of this split: what pairs outcomes across models.
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)

    def to(self, device: torch.device | str) -> Split:
        return Split(images=self.images.to(device), labels=self.labels.to(device), indices=self.indices)

    def take(self, chosen: Tensor) -> Split:
        """The images at the positions `chosen`, in that order."""
        at = chosen.to(self.images.device)
        return Split(images=self.images[at], labels=self.labels[at], indices=self.indices[chosen.cpu()])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A loaded data set: what is trained on, what is scored on, and the names of the classes."""

    train: Split
    test: Split
    classes: tuple[str, ...]

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    def to(self, device: torch.device | str) -> Data:
        return Data(train=self.train.to(device), test=self.test.to(device), classes=self.classes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource(Member, ABC):
    """A data set by name; its parameters choose classes, numbers of images and the size that a model sees."""

    #: Numbers of training and test images, as far as they are known without reading the data.
    stated: ClassVar[tuple[int, int]] = (50_000, 10_000)

    #: Height and width in pixels of what a model sees; null: as the images are.
    size: int | None = None
    #: Only these classes, by name or number, relabelled 0, 1, ... in this order; null: all.
    classes: tuple[int | str, ...] | None = None
    #: At most this many training images, a fixed random choice with equal shares of each class; null: all.
    train_images: int | None = None
    #: At most this many test images, chosen likewise; null: all.
    test_images: int | None = None

    def __post_init__(self) -> None:
        require(self.size is None or self.size >= 4, "size", "a whole number of pixels, at least 4", self.size)
        for name in ("train_images", "test_images"):
            count = getattr(self, name)
            require(count is None or count >= 1, name, "a whole number, at least 1", count)
        if self.classes is not None:
            require(len(self.classes) >= 2, "classes", "at least two classes", self.classes)
            require(len(set(self.classes)) == len(self.classes), "classes", "each class once", self.classes)

    @property
    def counts(self) -> tuple[int, int]:
        """About how many training and test images there are, for estimates of time alone."""
        train, test = self.stated
        return min(train, self.train_images or train), min(test, self.test_images or test)

    @property
    def flips(self) -> bool:
        """Whether a mirrored image keeps its label, so that training may flip it."""
        return True

    @property
    def crop_from(self) -> int | None:
        """Side in pixels that images are resized to before a crop of `size` is cut; null: no crop."""
        return None

    @abstractmethod
    def load(self, root: Path) -> Data:
        """The data set, read from below the data root `root`, with `classes` and the counts applied.

        Raises DataNotFoundError where the files are missing, naming the place for them.
        """

    def subset(self, names: Sequence[str], labels: Tensor, limit: int | None, stream: str) -> tuple[Tensor, Tensor]:
        """Positions and new labels of the images that `classes` and `limit` choose from `labels`, in a fixed order.

        The choice depends on the parameters alone, never on a job's seed, and a smaller limit chooses a part of what
        a larger one chooses, so outcomes of different runs can be paired.
        """
        wanted = list(range(len(names))) if self.classes is None else [self._number(c, names) for c in self.classes]
        if len(set(wanted)) < len(wanted):
            given = list(self.classes or ())
            raise ParameterError(f"data set {self.name!r}: parameter 'classes' expects each class once, got {given}")
        relabelled = torch.full_like(labels, -1)
        ranks = torch.full(labels.shape, torch.iinfo(torch.int64).max)
        generator = seeds.generator(0, "subset", self.name, stream)
        order = torch.randperm(len(labels), generator=generator)
        for new, old in enumerate(wanted):
            members = order[labels[order] == old]
            relabelled[members] = new
            # The first image of every class, then the second of every class, ...
            ranks[members] = torch.arange(len(members)) * len(wanted) + new
        chosen = torch.argsort(ranks)[: int((relabelled >= 0).sum())][:limit]
        return chosen, relabelled[chosen]

    def _number(self, given: int | str, names: Sequence[str]) -> int:
        if isinstance(given, int) and 0 <= given < len(names):
            return given
        if isinstance(given, str) and given in names:
            return names.index(given)
        known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ParameterError(
            f"data set {self.name!r}: parameter 'classes' expects names or numbers below {len(names)} of: {known}; "
            f"got {given!r}"
        )

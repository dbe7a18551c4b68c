"""A loaded data set: its splits with their images and labels.

Legend: images uint8 [n, channels, height, width].
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from signsym_core.datasets.mapped import Mapped

#: Called with the number of decoded images and their total.
Progress = Callable[[int, int], None]


class DataNotFoundError(FileNotFoundError):
    """A data set's files are missing; the message says where to put them."""


class DataWarning(UserWarning):
    """A problem with a data set that does not stop the run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Images and their labels, on one device."""

    #: uint8 [n, channels, height, width]; mapped from a file where they do not fit into memory.
    images: Tensor | Mapped
    #: int64 [n], or uint8 0/1 [n, classes] where an image has several labels.
    labels: Tensor
    #: Number of each image in the data set's order, on the CPU. It is unique in a split, pairs outcomes across models,
    #: and is all that has to be stored to know which images a split held.
    indices: Tensor
    #: uint8 [n, 16], on the CPU: digest of each image's file; null where images do not come from files.
    digests: Tensor | None = None
    #: Path of each image's file below the folder of the data set; null likewise.
    files: Sequence[str] | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """The device of the labels, and of the images that `take` returns."""
        return self.labels.device

    def to(self, device: torch.device | str) -> Split:
        """The split on `device`; mapped images stay in their file until `take` reads them."""
        images = self.images if isinstance(self.images, Mapped) else self.images.to(device)
        return dataclasses.replace(self, images=images, labels=self.labels.to(device))

    def take(self, positions: Tensor) -> Split:
        """The images at the positions `positions`, in that order, on the split's device."""
        rows = positions.to(self.device)
        # Not self.images[rows]: on a CPU that copies byte by byte, index_select copies whole images.
        images = self.images[rows] if isinstance(self.images, Mapped) else self.images.index_select(0, rows)
        numbers = positions.cpu()
        return Split(
            images=images.to(self.device),
            labels=self.labels[rows],
            indices=self.indices[numbers],
            digests=None if self.digests is None else self.digests[numbers],
            files=None if self.files is None else [self.files[number] for number in numbers.tolist()],
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A loaded data set: its splits and the names of its classes."""

    train: Split
    #: The images that scores are computed on; in retrieval the queries.
    test: Split
    classes: tuple[str, ...]
    #: The images that retrieval searches; null: the training split.
    database: Split | None = None
    #: The images that choose among the epochs of a training, neither trained on nor tested; null: there are none.
    validation: Split | None = None

    def __post_init__(self) -> None:
        """Raise ValueError for images or labels of another type or form, which would be trained on without a word."""
        for name, split in self.splits.items():
            shape, dtype = list(split.images.shape), split.images.dtype
            expected = f"{name}: images must be uint8 [n, channels, height, width], pixels from 0 to 255"
            if dtype != torch.uint8 or len(shape) != 4:
                raise ValueError(f"{expected}, got {dtype}{shape}")
            if shape[1] > 4 and shape[3] in (1, 3, 4):
                raise ValueError(f"{expected}, got {shape}, whose channels come last: permute(0, 3, 1, 2)")
            if len(split.images) != len(split.labels) or len(split.indices) != len(split.labels):
                counts = f"{len(split.images)}, {len(split.labels)} and {len(split.indices)}"
                raise ValueError(f"{name}: images, labels and indices must be equally many, got {counts}")

    @property
    def splits(self) -> dict[str, Split]:
        """Those that there are, by name."""
        named = {"train": self.train, "test": self.test, "database": self.database, "validation": self.validation}
        return {name: split for name, split in named.items() if split is not None}

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def sides(self) -> tuple[int, int]:
        """Height and width of the images as they are stored."""
        height, width = self.train.images.shape[2:]
        return int(height), int(width)

    @property
    def multi_label(self) -> bool:
        """Whether labels are 0/1 [n, classes] instead of one class per image."""
        return self.train.labels.dim() == 2

    def to(self, device: torch.device | str) -> Data:
        moved: dict[str, Any] = {name: split.to(device) for name, split in self.splits.items()}
        return dataclasses.replace(self, **moved)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """The images of a split, before they are decoded."""

    #: Position of each image in the pool of all images of the source.
    positions: Tensor
    #: Labels after `classes` has been applied.
    labels: Tensor
    #: As in `Split`.
    indices: Tensor

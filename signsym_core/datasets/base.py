"""What a data set is: images decoded once to uint8, labels, and how a batch of them becomes a model's input.

Legend: images uint8 [n, channels, height, width]; batches float32 [b, channels, size, size] in [0, 1].
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets.choice import draw, nested, per_class
from signsym_core.datasets.mapped import Mapped
from signsym_core.registry import Member, ParameterError, require


class DataNotFoundError(FileNotFoundError):
    """A data set's files are not where they should be; the message says where to put them."""


class DataWarning(UserWarning):
    """Something about a data set that people should read, and that stops nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the files of a data set come from, in words for people who have to fetch them."""

    url: str
    licence: str
    #: How much there is to fetch.
    size: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Split:
    """Images and their labels, on one device."""

    #: uint8 [n, channels, height, width]; mapped where they are too many for memory.
    images: Tensor | Mapped
    #: int64 [n], or uint8 0/1 [n, classes] where an image has several labels.
    labels: Tensor
    #: Number of each image in the data set's own order, on the CPU: unique in a split, what pairs outcomes across
    #: models, and all that has to be stored to know which images a split held.
    indices: Tensor
    #: uint8 [n, 16], on the CPU: digest of the file that each image comes from; null where images are no files.
    digests: Tensor | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def device(self) -> torch.device:
        """Where labels are, and where `take` puts images."""
        return self.labels.device

    def to(self, device: torch.device | str) -> Split:
        """The split on `device`; mapped images stay in their file until `take` brings them."""
        images = self.images if isinstance(self.images, Mapped) else self.images.to(device)
        return dataclasses.replace(self, images=images, labels=self.labels.to(device))

    def take(self, chosen: Tensor) -> Split:
        """The images at the positions `chosen`, in that order, on the split's device."""
        at = chosen.to(self.device)
        # Not self.images[at]: on a CPU that moves bytes one by one, this moves whole images.
        images = self.images[at] if isinstance(self.images, Mapped) else self.images.index_select(0, at)
        indices, digests = self.indices[chosen.cpu()], None if self.digests is None else self.digests[chosen.cpu()]
        return Split(images=images.to(self.device), labels=self.labels[at], indices=indices, digests=digests)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Data:
    """A loaded data set: what is trained on, what is scored on or asked for, and the names of the classes."""

    train: Split
    #: What is scored; in retrieval the queries.
    test: Split
    classes: tuple[str, ...]
    #: What retrieval searches; null: the training split.
    database: Split | None = None

    @property
    def channels(self) -> int:
        return int(self.train.images.shape[1])

    @property
    def multi_label(self) -> bool:
        """Whether labels are 0/1 [n, classes] instead of one class per image."""
        return self.train.labels.dim() == 2

    def to(self, device: torch.device | str) -> Data:
        database = None if self.database is None else self.database.to(device)
        return Data(train=self.train.to(device), test=self.test.to(device), classes=self.classes, database=database)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """What a split holds, before its images are decoded."""

    #: Place of each image in the pool of all images that the source knows.
    positions: Tensor
    #: Labels after `classes` has been applied.
    labels: Tensor
    #: As in `Split`.
    indices: Tensor


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource(Member, ABC):
    """A data set by name; its parameters choose classes, numbers of images and the size that a model sees."""

    #: Numbers of training and test images, as far as they are known without reading the data.
    stated: ClassVar[tuple[int, int]] = (50_000, 10_000)
    #: Where its files come from; the default is for files of one's own.
    origin: ClassVar[Origin] = Origin(url="files of your own", licence="that of your files", size="that of your files")

    #: Height and width in pixels of what a model sees; null: as the images are.
    size: int | None = None
    #: Only these classes, by name or number, relabelled 0, 1, ... in this order; null: all.
    classes: tuple[int | str, ...] | None = None
    #: At most this many training images, a fixed random choice with equal shares of each class; null: all.
    train_images: int | None = None
    #: At most this many test images, chosen likewise; null: all.
    test_images: int | None = None
    #: At most this many images of the retrieval database, chosen likewise; null: all.
    database_images: int | None = None
    #: null: training and test images as they are distributed. "T/Q/rest", such as 500/100/rest: both pooled, and of
    #: each class T images to train and Q to test (the queries), the rest as retrieval database; one fixed draw.
    split: str | None = None

    def __post_init__(self) -> None:
        require(self.size is None or self.size >= 4, "size", "a whole number of pixels, at least 4", self.size)
        for name in ("train_images", "test_images", "database_images"):
            count = getattr(self, name)
            require(count is None or count >= 1, name, "a whole number, at least 1", count)
        if self.classes is not None:
            require(len(self.classes) >= 2, "classes", "at least two classes", self.classes)
            require(len(set(self.classes)) == len(self.classes), "classes", "each class once", self.classes)
        form = "null, or T/Q/rest with whole numbers of images per class, such as 500/100/rest"
        require(self.split is None or per_class(self.split) is not None, "split", form, self.split)
        needs = "null where the data set has no database (set the parameter 'split')"
        require(self.database_images is None or self.has_database, "database_images", needs, self.database_images)

    @property
    def has_database(self) -> bool:
        """Whether the data come with a retrieval database apart from the training images."""
        return self.split is not None

    def absent(self, root: Path) -> str | None:
        """What has to be fetched before `load` can start, in words; null where nothing is known to be."""
        return None

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

    def choose(
        self,
        names: Sequence[str],
        labels: Tensor,
        members: Mapping[str, Tensor],
        numbers: Tensor | None = None,
    ) -> dict[str, Choice]:
        """What `split`, `classes` and the counts choose from a pool of images: "train", "test" and maybe "database".

        `labels` are those of the pool, for the classes `names`. `members` gives the positions that each split has as
        distributed. `numbers` are the images' own numbers where a distributed split counts from 0; null: positions
        (which `split` always uses, since it mixes). Raises ParameterError for a choice that the data cannot fulfil.
        """
        if self.split is not None:
            members, numbers = self._drawn(names, labels, members), None
        chosen = {}
        for part in ("train", "test", "database"):
            if part in members:
                pool = members[part]
                at, new = self.subset(names, labels[pool], getattr(self, f"{part}_images"), part)
                positions = pool[at]
                indices = positions if numbers is None else numbers[positions]
                chosen[part] = Choice(positions=positions, labels=new, indices=indices)
        return chosen

    def assemble(
        self,
        names: Sequence[str],
        chosen: Mapping[str, Choice],
        images: Callable[[Tensor], Tensor | Mapped],
        digests: Callable[[Tensor], Tensor] | None = None,
    ) -> Data:
        """The data set of `choose`'s choices, where `images` gives the pixels at positions of the pool.

        `digests` gives the digests of the images' files; null where images are no files.
        """
        splits = {
            part: Split(
                images=images(choice.positions),
                labels=choice.labels,
                indices=choice.indices,
                digests=None if digests is None else digests(choice.positions),
            )
            for part, choice in chosen.items()
        }
        kept = tuple(names[number] for number in self._wanted(names))
        return Data(train=splits["train"], test=splits["test"], classes=kept, database=splits.get("database"))

    def places(self, root: Path) -> Callable[[str, int], str | None]:
        """Given a split and an image's number: the image's file below `root`, for people; null where there is none."""
        return lambda part, number: None

    def subset(self, names: Sequence[str], labels: Tensor, limit: int | None, stream: str) -> tuple[Tensor, Tensor]:
        """Positions and new labels of the images that `classes` and `limit` choose from `labels`, in a fixed order.

        The choice depends on the parameters alone, never on a job's seed, and a smaller limit chooses a part of what
        a larger one chooses, so outcomes of different runs can be paired. Of images with several labels those are
        kept that have one of `classes`; where `classes` is null, images without any label come last.
        """
        order = torch.randperm(len(labels), generator=seeds.generator(0, "subset", self.name, stream))
        chosen, relabelled = nested(labels, self._wanted(names), self.classes is None, order)
        return chosen[:limit], relabelled[:limit]

    def _drawn(self, names: Sequence[str], labels: Tensor, members: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The parts of the rule `split`, drawn from all images of `members` together."""
        train, queries = per_class(self.split or "") or (0, 0)
        pool = torch.cat(list(members.values())).unique()
        order = torch.randperm(len(pool), generator=seeds.generator(0, "split", self.name, "per class"))
        try:
            parts = draw(labels[pool], names, train, queries, order)
        except ValueError as error:
            raise ParameterError(f"data set {self.name!r}: {error}") from None
        return {part: pool[at] for part, at in parts.items()}

    def _wanted(self, names: Sequence[str]) -> list[int]:
        """The numbers of the classes that are kept, in their new order."""
        wanted = list(range(len(names))) if self.classes is None else [self._number(c, names) for c in self.classes]
        if len(set(wanted)) < len(wanted):
            given = list(self.classes or ())
            raise ParameterError(f"data set {self.name!r}: parameter 'classes' expects each class once, got {given}")
        return wanted

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

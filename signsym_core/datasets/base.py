"""What a data set is: images decoded once to uint8, labels, and how a batch of them becomes a model's input.

Legend: images uint8 [n, channels, height, width]; batches float32 [b, channels, size, size] in [0, 1].
"""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, ClassVar

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets.choice import check_classes, draw, nested, per_class
from signsym_core.datasets.mapped import Mapped
from signsym_core.datasets.splits import Choice, Progress, Split
from signsym_core.datasets.splits import Data as Data
from signsym_core.datasets.splits import DataNotFoundError as DataNotFoundError
from signsym_core.registry import Member, ParameterError, neutral, require, shown


@dataclasses.dataclass(frozen=True, kw_only=True)
class Origin:
    """Where the files of a data set come from, for people who have to download them."""

    url: str
    licence: str
    #: Size of the download.
    size: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSource(Member, ABC):
    """A data set by name; its parameters choose the classes, the numbers of images and the size of a model's input."""

    #: Expected numbers of training and test images, known without reading the data.
    stated: ClassVar[tuple[int, int]] = (50_000, 10_000)
    #: How many classes they have, and height and width of an image, where these are known without reading the data.
    stated_classes: ClassVar[int | None] = None
    stated_sides: ClassVar[tuple[int, int] | None] = None
    #: Splits that the parameter `split` may name, each with its numbers of training and test images; `load` makes them.
    named_splits: ClassVar[Mapping[str, tuple[int, int]]] = MappingProxyType({})
    #: Whether images have several labels, known without reading the data: labels are 0/1 rows even where each has one.
    several: ClassVar[bool] = False
    #: Parameters that only choose the test images, so that data sets which differ only in them share their fine-tunes,
    #: each with the values that "all" stands for in a grid.
    testing: ClassVar[Mapping[str, tuple[Any, ...]]] = MappingProxyType({})
    #: The names of all classes in order, where they are known without reading the data.
    class_names: ClassVar[tuple[str, ...] | None] = None
    #: Where its files come from; the default is for the user's files.
    origin: ClassVar[Origin] = Origin(url="files of your own", licence="that of your files", size="that of your files")

    #: Height and width in pixels of a model's input; null: the size of the images.
    size: int | None = None
    #: Only these classes, by name or number, relabelled 0, 1, ... in this order; null: all.
    classes: tuple[int | str, ...] | None = None
    #: At most this many training images, a fixed random choice with equal shares of each class; null: all.
    train_images: int | None = None
    #: At most this many test images, chosen likewise; null: all.
    test_images: int | None = None
    #: At most this many images of the retrieval database, chosen likewise; null: all.
    database_images: int | None = None
    #: null: training and test images as they are distributed. "T/Q/rest", such as 500/100/rest: both are pooled, and
    #: one fixed draw gives T images of each class to train, Q to test (the queries) and the rest to the database.
    #: "authors-2024", for cifar10, coco, nuswide and imagenet100: the splits of the authors' code, one to validate too.
    split: str | None = None
    #: Images that choose among the epochs of a training, neither trained on nor tested: of a split that has such images
    #: at most so many, else exactly so many of the training images, a fixed random choice with equal shares of each
    #: class. null: those that the split has, mostly none.
    validation_images: int | None = neutral(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.size is None or self.size >= 4, "size", "a whole number of pixels, at least 4", self.size)
        for name in ("train_images", "test_images", "database_images", "validation_images"):
            count = getattr(self, name)
            require(count is None or count >= 1, name, "a whole number, at least 1", count)
        if self.classes is not None:
            require(len(self.classes) >= 2, "classes", "at least two classes", self.classes)
            require(len(set(self.classes)) == len(self.classes), "classes", "each class once", self.classes)
            names = self.class_names
            known = names is None or all(
                c in names if isinstance(c, str) else 0 <= c < len(names) for c in self.classes
            )
            words = f"names or numbers below {len(names or ())} of: {', '.join((names or ())[:20])}"
            require(known, "classes", words, self.classes)
        fits = self.crop_from is None or (self.size is not None and self.crop_from >= self.size)
        require(fits, "resize", "null, or at least the parameter 'size'", self.crop_from)
        form = "null, or T/Q/rest with whole numbers of images per class, such as 500/100/rest"
        form += "".join(f", or {name}" for name in self.named_splits)
        known = self.split is None or self.split in self.named_splits or per_class(self.split) is not None
        require(known, "split", form, self.split)
        needs = "null where the data set has no database (set the parameter 'split')"
        require(self.database_images is None or self.has_database, "database_images", needs, self.database_images)

        most = self.known_training_images
        few = self.validation_images is None or most is None or self.validation_images < most
        held = f"fewer than the {most} training images that they are held out of"
        require(few, "validation_images", held, self.validation_images)

    @property
    def class_count(self) -> int | None:
        """The number of classes, where it is known without reading the data."""
        return self.stated_classes if self.classes is None else len(self.classes)

    @property
    def has_database(self) -> bool:
        """Whether the data have a retrieval database besides the training images."""
        return self.split is not None

    @property
    def has_validation(self) -> bool:
        """Whether the data have images that choose among the epochs of a training."""
        return self.validation_images is not None or self.split in self.named_splits

    @property
    def pools(self) -> bool:
        """Whether `split` draws from the images of all splits together."""
        return self.split is not None and self.split not in self.named_splits

    @property
    def known_training_images(self) -> int | None:
        """The training images that validation images are held out of, where their number is known without the data."""
        known = type(self).stated is not DataSource.stated and self.split is None and self.classes is None
        return self.stated[0] if known else None

    def absent(self, root: Path) -> str | None:
        """A sentence that names the files to download before `load`; null where none are known to be missing."""
        return None

    @property
    def counts(self) -> tuple[int, int]:
        """Approximate numbers of training and test images, used only to estimate time."""
        train, test = self.named_splits.get(self.split or "", self.stated)
        classes = self.stated_classes if self.classes is None else len(self.classes)
        drawn = per_class(self.split or "")
        if drawn is not None and classes is not None:
            train, test = (count * classes for count in drawn)
        elif self.classes is not None and self.stated_classes is not None:
            train, test = (round(count * len(self.classes) / self.stated_classes) for count in (train, test))
        if self.validation_images is not None and self.split not in self.named_splits:
            train = max(1, train - self.validation_images)
        return min(train, self.train_images or train), min(test, self.test_images or test)

    @property
    def sides(self) -> tuple[int, int] | None:
        """Height and width in pixels of a model's input, where they are known without reading the data."""
        return None if self.size is None else (self.size, self.size)

    @property
    def flips(self) -> bool:
        """Whether a mirrored image keeps its label, so that training may flip it."""
        return True

    @property
    def crop_from(self) -> int | None:
        """Side in pixels that images are resized to before a crop of `size` is cut; null: no crop."""
        return None

    def refuse_idle(self, *names: str) -> None:
        """Raise ParameterError where one of these parameters, which play no part under `split`, is not the default."""
        defaults: dict[str, Any] = {field.name: field.default for field in dataclasses.fields(self)}
        for name in names:
            usual, value = defaults[name], getattr(self, name)
            require(
                value == usual, name, f"its default, {shown(usual)}, with split {self.split}, which ignores it", value
            )

    @abstractmethod
    def load(self, root: Path) -> Data:
        """The data set below the data root `root`, restricted to `classes` and the numbers of images.

        Raises DataNotFoundError where files are missing, with the path where they belong.
        """

    def tested(self, data: Data, root: Path, progress: Progress | None = None) -> Data:
        """`data`, loaded without the parameters of `testing`, with the test images that these choose.

        They have the order, labels and numbers of those that they replace.
        """
        return data

    def choose(
        self, names: Sequence[str], labels: Tensor, members: Mapping[str, Tensor], numbers: Tensor | None = None
    ) -> dict[str, Choice]:
        """The images of a pool that `split`, `classes` and the limits select for each split.

        The splits are "train" and "test", and "database" and "validation" where the data have them. `labels` are those
        of the pool, for the classes `names`. `members` holds the positions of each split as distributed, or those of
        one of `named_splits` where `split` names it. `numbers` are the images' numbers where each distributed split
        counts from 0; null: positions in the pool (always used with `split`, which mixes the splits). Raises
        ParameterError for a selection that the data cannot fulfil, ValueError for labels that are no classes.
        """
        check_classes(labels, len(names))
        if self.split is not None:
            numbers = None
        if self.pools:
            members = self._drawn(names, labels, members)
        if self.validation_images is not None and "validation" not in members:
            members = {**members, **self._held_out(names, labels, members["train"], self.validation_images)}
        chosen = {}
        for split in ("train", "test", "database", "validation"):
            if split in members:
                pool = members[split]
                rows, relabelled = self.subset(names, labels[pool], getattr(self, f"{split}_images"), split)
                positions = pool[rows]
                indices = positions if numbers is None else numbers[positions]
                chosen[split] = Choice(positions=positions, labels=relabelled, indices=indices)
        return chosen

    def assemble(
        self,
        names: Sequence[str],
        chosen: Mapping[str, Choice],
        images: Callable[[Tensor], Tensor | Mapped],
        digests: Callable[[Tensor], Tensor] | None = None,
        files: Sequence[str] | None = None,
    ) -> Data:
        """The data set of the choices that `choose` made; `images` returns the pixels at positions of the pool.

        `digests` returns the digests of the images' files, and `files` are the paths of those of the pool; null where
        images do not come from files.
        """
        splits = {
            split: Split(
                images=images(choice.positions),
                labels=choice.labels,
                indices=choice.indices,
                digests=None if digests is None else digests(choice.positions),
                files=None if files is None else [files[position] for position in choice.positions.tolist()],
            )
            for split, choice in chosen.items()
        }
        kept = tuple(names[number] for number in self._class_numbers(names))
        more = {name: splits.get(name) for name in ("database", "validation")}
        return Data(train=splits["train"], test=splits["test"], classes=kept, **more)

    def places(self, root: Path) -> Callable[[str, int], str | None]:
        """A function from a split and an image's number to the path of its file, or None where it has no file."""
        return lambda split, number: None

    def subset(self, names: Sequence[str], labels: Tensor, limit: int | None, stream: str) -> tuple[Tensor, Tensor]:
        """Positions and new labels of the images that `classes` and `limit` select from `labels`, in a fixed order.

        The selection depends only on the parameters, never on a job's seed, and a smaller limit selects a subset of
        what a larger one selects, so outcomes of different runs can be paired. Images with several labels are kept
        when they have one of `classes`; where `classes` is null, images without any label come last.
        """
        order = torch.randperm(len(labels), generator=seeds.generator(0, "subset", self.name, stream))
        chosen, relabelled = nested(labels, self._class_numbers(names), self.classes is None, order)
        return chosen[:limit], relabelled[:limit]

    def _drawn(self, names: Sequence[str], labels: Tensor, members: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The splits that the parameter `split` draws from all images of `members` together."""
        train, queries = per_class(self.split or "") or (0, 0)
        pool = torch.cat(list(members.values())).unique()
        order = torch.randperm(len(pool), generator=seeds.generator(0, "split", self.name, "per class"))
        try:
            drawn = draw(labels[pool], names, train, queries, order)
        except ValueError as error:
            raise ParameterError(f"data set {self.name!r}: {error}") from None
        return {split: pool[rows] for split, rows in drawn.items()}

    def _held_out(self, names: Sequence[str], labels: Tensor, train: Tensor, count: int) -> dict[str, Tensor]:
        """`count` of the training images `train` as "validation", and the others as "train"."""
        rows, _ = self.subset(names, labels[train], None, "validation")
        if count >= len(rows):
            raise ParameterError(
                f"data set {self.name!r}: parameter 'validation_images' expects fewer than the {len(rows)} training "
                f"images that they are held out of, got {count}"
            )
        rest = torch.ones(len(train), dtype=torch.bool)
        rest[rows[:count]] = False
        return {"train": train[rest], "validation": train[rows[:count]]}

    def _class_numbers(self, names: Sequence[str]) -> list[int]:
        """The numbers of the selected classes, in their new order."""
        numbers = list(range(len(names))) if self.classes is None else [self._number(c, names) for c in self.classes]
        if len(set(numbers)) < len(numbers):
            classes = list(self.classes or ())
            raise ParameterError(f"data set {self.name!r}: parameter 'classes' expects each class once, got {classes}")
        return numbers

    def _number(self, choice: int | str, names: Sequence[str]) -> int:
        if isinstance(choice, int) and 0 <= choice < len(names):
            return choice
        if isinstance(choice, str) and choice in names:
            return names.index(choice)
        known = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
        raise ParameterError(
            f"data set {self.name!r}: parameter 'classes' expects names or numbers below {len(names)} of: {known}; "
            f"got {choice!r}"
        )

"""CIFAR-10 from its official files, through torchvision."""

from __future__ import annotations

import dataclasses
import fcntl
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch

from signsym_core.datasets import authors_2024, cifar10c
from signsym_core.datasets.base import Origin
from signsym_core.datasets.corruptions import EXTRA, SEVERITIES, STANDARD, Corruptible
from signsym_core.datasets.splits import Data, DataNotFoundError, Progress, Split
from signsym_core.registry import neutral
from signsym_core.vision import torchvision


@dataclasses.dataclass(frozen=True, kw_only=True)
class CIFAR10(Corruptible):
    """60,000 colour images of ten classes, 32 x 32 pixels: 50,000 to train, 10,000 to test.

    `split: authors-2024`: of each class 500 to train, 100 queries and 100 to validate, 53,000 in the database, drawn as
    the authors' code does. `corruption`: the test images of CIFAR-10-C, from DATA_ROOT/CIFAR-10-C/KIND.npy.
    """

    name = "cifar10"
    label = "CIFAR-10"
    citation = "Krizhevsky 2009, Learning multiple layers of features from tiny images"
    stated = (50_000, 10_000)
    stated_classes = 10
    stated_sides = (32, 32)
    class_names = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    origin = Origin(
        url="https://www.cs.toronto.edu/~kriz/cifar.html (downloaded automatically where the network allows)",
        licence="none stated; its author asks for a citation",
        size="163 MiB as cifar-10-python.tar.gz",
    )
    kinds = (*STANDARD, *EXTRA)
    testing = MappingProxyType({"corruption": STANDARD, "severity": SEVERITIES})
    named_splits = MappingProxyType({authors_2024.NAME: (5_000, 1_000)})

    #: Side in pixels that images are resized to before a crop of `size` is cut (256 with size 224); null: no crop.
    resize: int | None = neutral(None)

    @property
    def crop_from(self) -> int | None:
        return self.resize

    def absent(self, root: Path) -> str | None:
        official = torchvision("datasets").CIFAR10
        folder, archive = root / official.base_folder, root / official.filename
        if folder.is_dir() or archive.is_file():
            return None
        return f"neither {folder} nor {archive} is there"

    def load(self, root: Path) -> Data:
        official = torchvision("datasets").CIFAR10
        folder = official.base_folder
        try:
            root.mkdir(parents=True, exist_ok=True)
            # Several trials may start at once: one downloads, the others wait for it.
            with open(root / f".{folder}.lock", "w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                loaded = {split: official(root, split == "train", download=True) for split in ("train", "test")}
        except (OSError, RuntimeError) as error:
            raise DataNotFoundError(
                f"CIFAR-10 is not at {root / folder} and could not be downloaded ({error}). Put the official archive "
                f"{official.filename} (md5 {official.tgz_md5}) at "
                f"{root / official.filename}, or its unpacked folder at {root / folder}; --data-root names "
                f"another place than {root}. A folder of images works as data set 'imagefolder'"
            ) from error
        sizes = [len(dataset.targets) for dataset in loaded.values()]
        labels = torch.tensor([label for dataset in loaded.values() for label in dataset.targets])
        pixels = torch.from_numpy(np.concatenate([dataset.data for dataset in loaded.values()])).permute(0, 3, 1, 2)
        pool = torch.arange(len(labels))
        members = {"train": pool[: sizes[0]], "test": pool[sizes[0] :]}
        if self.split == authors_2024.NAME:
            members = authors_2024.per_class(labels, authors_2024.OF_A_CLASS)
        numbers = torch.cat([torch.arange(size) for size in sizes])
        names = loaded["train"].classes
        chosen = self.choose(names, labels, members, numbers)
        return self.tested(self.assemble(names, chosen, lambda positions: pixels[positions].contiguous()), root)

    def corrupted(self, test: Split, root: Path, progress: Progress | None = None) -> Split:
        kind, severity = self.corruption or "", self.severity or 0
        classes = torch.tensor(self._class_numbers(CIFAR10.class_names))[test.labels.cpu()]
        images = cifar10c.corrupted_images(root, kind, severity, test.indices, classes)
        return dataclasses.replace(test, images=images)

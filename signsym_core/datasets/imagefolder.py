"""Any tree of images with a folder for each class."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

import torch

from signsym_core import seeds
from signsym_core.datasets.base import DataNotFoundError
from signsym_core.datasets.decode import SUFFIXES
from signsym_core.datasets.files import FileSource, Listing


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder(FileSource):
    """Images at PATH/train/CLASS/* and PATH/test/CLASS/* (or val), or at PATH/CLASS/* with a fixed quarter to test.

    Colour, grey and other modes are read as RGB. Square images of one size are kept as they are; others are scaled so
    that their shorter side fits, then cropped to the middle square.
    """

    name = "imagefolder"
    label = "image folder"
    citation = "torchvision's ImageFolder layout"

    #: Whether training may mirror images.
    flip: bool = True

    @property
    def flips(self) -> bool:
        return self.flip

    def listing(self, root: Path) -> Listing:
        tree = root / self.path
        if not tree.is_dir():
            raise DataNotFoundError(
                f"image folder {tree} does not exist. Unpack the images there, a folder for each class (as they are "
                f"or below train/ and test/); --data-root names another place than {root}"
            )
        folders = {entry.name for entry in os.scandir(tree) if entry.is_dir()}
        held_out = next((name for name in ("test", "val") if name in folders), None)
        if "train" in folders and held_out:
            return of_classes(tree, "train", held_out)
        names = class_names(tree)
        files, labels = class_files(tree, "", names)
        order = torch.randperm(len(files), generator=seeds.generator(0, "split", "imagefolder"))
        quarter = len(files) // 4
        members = {"train": order[quarter:], "test": order[:quarter]}
        return Listing(names=names, tree=tree, files=files, labels=torch.tensor(labels), members=members)


def of_classes(tree: Path, train: str, test: str) -> Listing:
    """The listing of TREE/train/CLASS/* and TREE/test/CLASS/*, with the classes of the training part."""
    names = class_names(tree / train)
    parts = [class_files(tree, part, names) for part in (train, test)]
    files = [file for part, _ in parts for file in part]
    labels = torch.tensor([label for _, part in parts for label in part], dtype=torch.int64)
    at = torch.arange(len(files))
    size = len(parts[0][0])
    numbers = torch.cat([torch.arange(len(part)) for part, _ in parts])
    members = {"train": at[:size], "test": at[size:]}
    return Listing(names=names, tree=tree, files=files, labels=labels, members=members, numbers=numbers)


def class_names(folder: Path) -> list[str]:
    """The names of the class folders, in their order."""
    names = sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))
    if len(names) < 2:
        raise DataNotFoundError(
            f"image folder {folder}: expected a folder for each of at least two classes, got {names}"
        )
    return names


def class_files(tree: Path, part: str, names: list[str]) -> tuple[list[str], list[int]]:
    """Images below TREE/PART with the number of their class, ordered by class and name, as paths below `tree`."""
    files: list[str] = []
    labels: list[int] = []
    start = len(str(tree)) + 1
    for label, name in enumerate(names):
        found = []
        for folder, _, inside in os.walk(tree / part / name, followlinks=True):
            below = folder[start:].replace(os.sep, "/")
            found += [f"{below}/{file}" for file in inside if os.path.splitext(file)[1].lower() in SUFFIXES]
        # Folder by folder, not by the separator's place among the characters.
        files += sorted(found, key=lambda path: path.split("/"))
        labels += [label] * len(found)
    return files, labels

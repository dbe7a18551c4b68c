"""Any tree of images with a folder for each class."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from signsym_core import seeds
from signsym_core.datasets.classfolders import class_files, class_names, folders, of_classes, refuse_empty
from signsym_core.datasets.files import FileSource, Listing
from signsym_core.datasets.splits import DataNotFoundError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageFolder(FileSource):
    """Images at PATH/train/CLASS/* and PATH/test/CLASS/* (or val), or at PATH/CLASS/* with a fixed quarter to test.

    Colour, grey and other modes are read as RGB. Square images of one size are kept as they are; others are scaled so
    that their shorter side fits, then cropped to the middle square. `classfolders` says which files count, `decode`
    which formats.
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
        subfolders = folders(tree)
        held_out = next((name for name in ("test", "val") if name in subfolders), None)
        if "train" in subfolders and held_out:
            return of_classes(tree, "train", held_out)
        names = class_names(tree)
        files, labels = class_files(tree, "", names)
        refuse_empty(tree, names, labels)
        order = torch.randperm(len(files), generator=seeds.generator(0, "split", "imagefolder"))
        quarter = len(files) // 4
        members = {"train": order[quarter:], "test": order[:quarter]}
        return Listing(names=names, tree=tree, files=files, labels=torch.tensor(labels), members=members)

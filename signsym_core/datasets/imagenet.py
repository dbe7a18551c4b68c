"""ImageNet (ILSVRC 2012) in the folders that torchvision expects."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from signsym_core.datasets.base import Origin
from signsym_core.datasets.classfolders import of_classes
from signsym_core.datasets.files import Listing
from signsym_core.datasets.imagenetc import CorruptibleImageNet
from signsym_core.datasets.splits import DataNotFoundError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageNet(CorruptibleImageNet):
    """1,281,167 training and 50,000 validation images of 1,000 classes: PATH/train/WNID/* and PATH/val/WNID/*.

    Classes are called by their WordNet number (n01440764 ...), in alphabetical order as torchvision numbers them, so
    labels fit the heads of its published weights. The validation images are the test split. `corruption`: those of
    ImageNet-C, from DATA_ROOT/ImageNet-C/KIND/SEVERITY/WNID/*.
    """

    name = "imagenet"
    label = "ImageNet"
    citation = "Russakovsky et al. 2015, ImageNet Large Scale Visual Recognition Challenge, 1409.0575"
    stated = (1_281_167, 50_000)
    stated_classes = 1_000
    origin = Origin(
        url="https://image-net.org/challenges/LSVRC/2012 (an account is needed)",
        licence="for non-commercial research and teaching, by ImageNet's terms of access",
        size="138 GB for training, 6.3 GB for validation",
    )

    size: int | None = 224
    path: str = "imagenet"

    def listing(self, root: Path) -> Listing:
        return of_classes(imagenet_tree(self.label, root, self.path), "train", "val")


def imagenet_tree(label: str, root: Path, path: str) -> Path:
    """The folder with train/ and val/; raises DataNotFoundError with what is missing."""
    tree = root / path
    missing = [str(tree / folder) for folder in ("train", "val") if not (tree / folder).is_dir()]
    if missing:
        raise DataNotFoundError(
            f"{label}: missing {' and '.join(missing)}. They hold a folder of images for each class, named by its "
            f"WordNet number (val/n01440764/ILSVRC2012_val_00000293.JPEG); --data-root names another place than {root}"
        )
    return tree

"""scikit-learn's handwritten digits: real data, 8 x 8 pixels, that needs no network."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path
from types import MappingProxyType

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets.base import Origin
from signsym_core.datasets.corruptions import SEVERITIES, Corruptible
from signsym_core.datasets.noises import NOISES, noisy
from signsym_core.datasets.splits import Data, Progress, Split


@dataclasses.dataclass(frozen=True, kw_only=True)
class Digits(Corruptible):
    """1,797 grey images of ten digits, 8 x 8 pixels of 0 .. 16; a fixed quarter of them is the test set.

    `corruption`: the test images with noise, brighter or of less contrast, computed when they are loaded.
    """

    name = "digits"
    label = "digits"
    citation = "Alpaydin, Kaynak 1998, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository"
    tags = frozenset({"offline"})
    kinds = tuple(NOISES)
    testing = MappingProxyType({"corruption": tuple(NOISES), "severity": SEVERITIES})
    stated = (1_348, 449)
    stated_classes = 10
    stated_sides = (8, 8)
    class_names = tuple(map(str, range(10)))
    origin = Origin(
        url="https://archive.ics.uci.edu/dataset/80 (a part of it comes with scikit-learn)",
        licence="CC BY 4.0",
        size="nothing to fetch",
    )

    @property
    def flips(self) -> bool:
        return False

    def load(self, root: Path) -> Data:
        rows = torch.from_numpy(_rows())
        images = rows[:, :-1].reshape(-1, 1, 8, 8).mul(255 / 16).round().to(torch.uint8)
        labels = rows[:, -1].long()
        order = torch.randperm(len(labels), generator=seeds.generator(0, "split", self.name))
        test_size = len(labels) // 4
        names = [str(digit) for digit in range(10)]
        members = {"train": order[test_size:], "test": order[:test_size]}
        chosen = self.choose(names, labels, members)
        return self.tested(self.assemble(names, chosen, lambda positions: images[positions]), root)

    def corrupted(self, test: Split, root: Path, progress: Progress | None = None) -> Split:
        pixels = test.to("cpu").images
        assert isinstance(pixels, Tensor)
        images = noisy(pixels, test.indices, self.corruption or "", self.severity or 0)
        return dataclasses.replace(test, images=images)


def _rows() -> npt.NDArray[np.float64]:
    """[1,797, 65]: the pixels of an image and its digit, from scikit-learn's file.

    scikit-learn itself is not imported for it: that takes longer than a fine-tune on these images.
    """
    package = importlib.util.find_spec("sklearn")
    assert package is not None
    assert package.submodule_search_locations is not None
    (folder,) = package.submodule_search_locations
    return np.loadtxt(Path(folder, "datasets", "data", "digits.csv.gz"), delimiter=",")

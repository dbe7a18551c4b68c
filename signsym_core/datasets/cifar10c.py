"""CIFAR-10-C: the test images of CIFAR-10 under corruptions, from its files.

CIFAR-10-C/KIND.npy is uint8 [50,000, 32, 32, 3]: row 10,000 (s - 1) + i is test image i at severity s, and labels.npy
has the class of each row.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.corruptions import SEVERITIES
from signsym_core.datasets.splits import DataNotFoundError

FOLDER = "CIFAR-10-C"
#: Test images of each severity.
IMAGES = 10_000
_ROWS = IMAGES * len(SEVERITIES)
_SOURCE = "record 2535967 of Zenodo, https://zenodo.org/record/2535967 (CIFAR-10-C.tar, 2.9 GB)"


def corrupted_images(root: Path, kind: str, severity: int, numbers: Tensor, classes: Tensor) -> Tensor:
    """The test images of these numbers under `kind` at `severity`, from the files below `root`: uint8 [n, 3, 32, 32].

    `classes` are the classes of the clean images. Raises DataNotFoundError for a missing file, and ValueError for one
    of another shape or type, and for labels that are not those of the clean images.
    """
    rows = numbers.numpy() + IMAGES * (severity - 1)
    labels = _array(root / FOLDER / "labels.npy", (_ROWS,), "integers")
    pixels = _array(root / FOLDER / f"{kind}.npy", (_ROWS, 32, 32, 3), "uint8")
    wrong = np.flatnonzero(labels[rows] != classes.numpy())
    if len(wrong):
        at, differ = int(wrong[0]), f"{len(wrong):,} of {len(rows):,} differ"
        raise ValueError(
            f"{root / FOLDER / 'labels.npy'}: expected the classes of CIFAR-10's test images, so {int(classes[at])} in "
            f"row {rows[at]}, image {int(numbers[at])}, got {labels[rows[at]]} ({differ}). Unpack the archive again: "
            f"{_SOURCE}"
        )
    # In the order of the file, in which a disk reads it faster.
    order = np.argsort(rows)
    chosen = np.empty((len(rows), 32, 32, 3), dtype=np.uint8)
    chosen[order] = pixels[rows[order]]
    return torch.from_numpy(chosen).permute(0, 3, 1, 2).contiguous()


def _array(file: Path, shape: tuple[int, ...], kind: str) -> np.ndarray:
    """A file's array, mapped into memory, which has this shape and holds "integers" or "uint8"."""
    if not file.is_file():
        raise DataNotFoundError(
            f"CIFAR-10-C is not complete: {file} is not there. Download {_SOURCE} and unpack it so that {file.parent} "
            f"has a file KIND.npy for each kind of corruption and labels.npy; --data-root names another place"
        )
    expected = f"{kind} of shape {list(shape)}"
    try:
        array: np.ndarray = np.load(file, mmap_mode="r", allow_pickle=False)
    except (ValueError, EOFError) as error:
        raise ValueError(
            f"{file}: expected {expected} as numpy saves them, got a file that it cannot read ({error})"
        ) from None
    fits = array.dtype == np.uint8 if kind == "uint8" else array.dtype.kind in "iu"
    if array.shape != shape or not fits:
        raise ValueError(
            f"{file}: expected {expected}, got {array.dtype} of shape {list(array.shape)}. Get it from {_SOURCE}"
        )
    return array

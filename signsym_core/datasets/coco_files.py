"""Where the images of MS-COCO lie, in the release of 2014 and in that of 2017."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from signsym_core.datasets.annotations import Annotated
from signsym_core.datasets.listfile import Tree
from signsym_core.datasets.splits import DataNotFoundError

#: The folders of a release; both releases hold the same 123,287 images under the same numbers.
FOLDERS = {"2017": ("train2017", "val2017"), "2014": ("train2014", "val2014")}


def pooled(tree: Path, folders: Sequence[str], annotated: Sequence[Annotated]) -> tuple[list[str], Tensor]:
    """Paths below `tree` of all images by image number, and the place of each in the annotation files together."""
    inside = Tree(tree)
    located: list[tuple[int, str, int, int]] = []
    missing: list[str] = []
    for number, (folder, images) in enumerate(zip(folders, annotated, strict=True)):
        for row, (identity, file) in enumerate(zip(images.numbers, images.files, strict=True)):
            places = (f"{folder}/{file}", f"images/{folder}/{file}")
            path = next((place for place in places if place in inside), None)
            if path is None:
                missing.append(places[0])
            else:
                located.append((identity, path, number, row))
    if missing:
        total = len(located) + len(missing)
        raise DataNotFoundError(
            f"MS-COCO: {len(missing)} of {total} annotated images are not below {tree}; the first was expected at "
            f"{missing[0]} and images/{missing[0]}"
        )
    located.sort()
    double = next((one for one, other in itertools.pairwise(located) if one[0] == other[0]), None)
    if double is not None:
        raise ValueError(
            f"MS-COCO {tree}: expected every image to have a unique number, got number {double[0]} in "
            f"{' and '.join(folders)}"
        )
    start = len(annotated[0].files)
    positions = torch.tensor([row + start * number for _, _, number, row in located], dtype=torch.int64)
    return [path for _, path, _, _ in located], positions


def as_distributed(path: str, row: Tensor) -> list[str]:
    """The paths at which either release stores the image whose number ends the listed path."""
    number = re.search(r"(\d+)$", PurePosixPath(path).stem)
    if number is None:
        return []
    places = []
    for year, folders in FOLDERS.items():
        for folder in folders:
            file = f"{int(number[1]):012d}.jpg"
            place = f"{folder}/{file if year == '2017' else f'COCO_{folder}_{file}'}"
            places += [place, f"images/{place}"]
    return places

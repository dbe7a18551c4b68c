"""List files of the retrieval literature: a line per image, its path and a 0 or 1 for every class.

    ./data/coco/val2014/COCO_val2014_000000477705.jpg 0 0 1 0 ...

Paths were written on other people's machines, so they are looked for from their right end: the whole path below the
folder of the images, then without its first folder, and so on, then where the data set's own layouts would have it.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.base import DataNotFoundError


@dataclasses.dataclass(frozen=True, kw_only=True)
class ImageList:
    """One list file: images in its order."""

    file: Path
    paths: Sequence[str]
    #: uint8 0/1 [images, classes].
    labels: Tensor
    #: Number of each image's line in the file, from 1.
    lines: Sequence[int]


def read_list(file: Path, width: int | None = None, *, unlabelled: bool = True) -> ImageList:
    """The list in `file`, with `width` classes (null: as many as its first line has).

    Raises ValueError, with file and line, for a line that is not a path and 0/1 labels of that number, for an image
    that is listed twice, for an empty list, and without `unlabelled` for an image without any label.
    """
    paths: list[str] = []
    rows: list[bytes] = []
    lines: list[int] = []
    try:
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{file}: expected UTF-8 text, got the byte 0x{error.object[error.start]:02x}") from None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        if not lines:
            found = _labels_at_end(line)
            width = found if width is None else width
            if found > width:
                raise ValueError(f"{file}:{number}: expected a path and {width} labels 0 or 1, got {found} labels")
        if width is None or width < 2:
            raise ValueError(f"{file}:{number}: expected a path and at least two labels 0 or 1, got {_shown(line)}")
        # From the right, so that a path may hold spaces.
        path, *marks = line.rsplit(maxsplit=width)
        row = "".join(marks)
        if len(row) != width or row.strip("01"):
            got = f"{_labels_at_end(line)} labels 0 or 1 at the end of {_shown(line)}"
            raise ValueError(f"{file}:{number}: expected a path and {width} labels 0 or 1, got {got}")
        if not unlabelled and "1" not in row:
            raise ValueError(f"{file}:{number}: expected at least one label of {path!r} to be 1, got only 0")
        paths.append(path)
        rows.append(row.encode())
        lines.append(number)
    if not paths:
        raise ValueError(f"{file}: expected a line for each image, got none")
    if len(set(paths)) < len(paths):
        first: dict[str, int] = {}
        for path, number in zip(paths, lines, strict=True):
            if first.setdefault(path, number) != number:
                raise ValueError(f"{file}:{number}: expected each image once, got {path!r}, as in line {first[path]}")
    labels = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1) - ord("0")
    return ImageList(file=file, paths=paths, labels=torch.from_numpy(labels), lines=lines)


def _labels_at_end(line: str) -> int:
    words = line.split()
    return next((at for at, word in enumerate(reversed(words)) if word not in ("0", "1")), len(words) - 1)


def _shown(line: str) -> str:
    return repr(line if len(line) <= 80 else f"{line[:50]} ... {line[-20:]}")


#: Other places of an image, relative to the tree, from its path in the list and its row of labels.
Elsewhere = Callable[[str, Tensor], Sequence[str]]


class Tree:
    """Which files lie below a folder; each folder is read once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inside: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        if parent not in self._inside:
            try:
                with os.scandir(self.folder / parent) as entries:
                    self._inside[parent] = frozenset(entry.name for entry in entries)
            except (FileNotFoundError, NotADirectoryError):
                self._inside[parent] = frozenset()
        return name in self._inside[parent]


def located(images: ImageList, tree: Tree, elsewhere: Elsewhere | None = None) -> list[str]:
    """The path of every image of a list below the tree.

    Raises DataNotFoundError that counts the missing images and says, for the first, where it was looked for.
    """
    found: list[str] = []
    missing: list[tuple[int, list[str]]] = []
    for number, path in enumerate(images.paths):
        candidates = _from_the_right(path)
        at = next((candidate for candidate in candidates if candidate in tree), None)
        if at is None and elsewhere is not None:
            candidates += elsewhere(path, images.labels[number])
            at = next((candidate for candidate in candidates if candidate in tree), None)
        if at is None:
            missing.append((images.lines[number], candidates))
        else:
            found.append(at)
    if missing:
        line, candidates = missing[0]
        raise DataNotFoundError(
            f"{images.file}:{line}: {len(missing)} of {len(images.paths)} listed images are not below {tree.folder}; "
            f"the first was looked for at {', '.join(candidates)}. The parameter 'path' names another folder"
        )
    return found


def _from_the_right(path: str) -> list[str]:
    parts = [part for part in PurePosixPath(path.replace("\\", "/")).parts if part not in ("/", "..")]
    return ["/".join(parts[at:]) for at in range(len(parts))]

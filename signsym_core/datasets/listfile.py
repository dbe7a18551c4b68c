"""List files of the retrieval literature: a line per image, its path and a 0 or 1 for every class.

    ./data/coco/val2014/COCO_val2014_000000477705.jpg 0 0 1 0 ...

Accepted are UTF-8 with or without a byte order mark, lines that end in LF or CR LF, blanks or tabs between the columns
and after them, empty lines, and blanks inside a path. Every line has as many labels as the first, or as the data set
has classes; each is 0 or 1. An image stands in a list once, and with the same labels wherever else it stands.

Paths were written on other people's machines, so they are matched from their right end: the whole path below the folder
of the images, then without its first folder, and so on, then at the paths of the data set's published layouts. So a
path may be absolute, a Windows path, or begin with `..`: only its right end counts, and nothing outside that folder is
read. Refused are an absolute path to an existing file of this machine that is not the one below the folder, and `..`
after a name, which would change the right end.
"""

from __future__ import annotations

import dataclasses
import itertools
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.splits import DataNotFoundError


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
    first: dict[str, int] = {}
    # Not splitlines(), which also ends lines at characters that may stand in a path.
    for number, ended in enumerate(_text(file).split("\n"), start=1):
        line = ended.removesuffix("\r").rstrip(" \t")
        if not line:
            continue
        where = f"{file}:{number}"
        if width is None:
            width = _labels_at_end(line)
        if width < 2:
            raise ValueError(f"{where}: expected a path and at least two labels 0 or 1, got {_shown(line)}")
        path, row = _columns(where, line, width)
        if not unlabelled and "1" not in row:
            raise ValueError(f"{where}: expected at least one label of {path!r} to be 1, got only 0")
        if first.setdefault(path, number) != number:
            raise ValueError(f"{where}: expected each image once, got {path!r}, as in line {first[path]}")
        paths.append(path)
        rows.append(row.encode())
        lines.append(number)
    if not paths:
        raise ValueError(f"{file}:1: expected a line for each image, got none")
    labels = np.frombuffer(b"".join(rows), dtype=np.uint8).reshape(len(rows), -1) - ord("0")
    return ImageList(file=file, paths=paths, labels=torch.from_numpy(labels), lines=lines)


def _text(file: Path) -> str:
    content = file.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        # The error's position does not count the byte order mark, which contains no line end.
        number = error.object[: error.start].count(b"\n") + 1
        raise ValueError(f"{file}:{number}: expected UTF-8, got the byte 0x{error.object[error.start]:02x}") from None


def _columns(where: str, line: str, width: int) -> tuple[str, str]:
    """The path and the labels of a line, one character each."""
    if not line.isprintable() and (control := _CONTROL.search(line)):
        raise ValueError(f"{where}: expected a path and labels, got the character {control[0]!r} in {_shown(line)}")
    # From the right, so that a path may hold blanks.
    path, *labels = line.rsplit(maxsplit=width) if line.isascii() else _split(line, width)
    row = "".join(labels)
    if len(labels) != width or len(row) != width or row.strip("01") or _ends_in_label(path):
        got = f"{_labels_at_end(line)} labels 0 or 1 at the end of {_shown(line)}"
        raise ValueError(f"{where}: expected a path and {width} labels 0 or 1, got {got}")
    if line[0] in " \t" or path[-1] in "/\\" or not path.strip("./\\"):
        raise ValueError(f"{where}: expected the path of a file at the start of the line, got {_shown(line)}")
    if ".." in path and ".." in _names(path):
        raise ValueError(f"{where}: expected a path without '..' after a name, got {path!r}")
    return path, row


#: Control characters, which are not allowed in a line; a tab counts as a blank.
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")
_BLANKS = re.compile(r"[ \t]+")


def _ends_in_label(path: str) -> bool:
    """Whether the path ends in a label, that is, the line has more labels than expected."""
    return path[-1] in "01" and (len(path) == 1 or path[-2] in " \t")


def _split(line: str, width: int) -> list[str]:
    """`line.rsplit(maxsplit=width)` at blanks and tabs only, not at other Unicode white space."""
    gaps = list(_BLANKS.finditer(line))[-width:]
    starts, ends = [0, *(gap.end() for gap in gaps)], [*(gap.start() for gap in gaps), len(line)]
    return [line[start:end] for start, end in zip(starts, ends, strict=True)]


def _labels_at_end(line: str) -> int:
    words = _BLANKS.split(line.strip(" \t"))
    return next((count for count, word in enumerate(reversed(words)) if word not in ("0", "1")), len(words) - 1)


def _shown(line: str) -> str:
    return repr(line if len(line) <= 80 else f"{line[:50]} ... {line[-20:]}")


def _names(path: str) -> list[str]:
    """The folders and the name of a path, without a leading root or leading `..`."""
    names = [name for name in PurePosixPath(path.replace("\\", "/")).parts if name != "/"]
    return list(itertools.dropwhile(lambda name: name == "..", names))


#: From an image's path in the list and its row of labels to other paths, relative to the tree, where it may lie.
Elsewhere = Callable[[str, Tensor], Sequence[str]]


class Tree:
    """The regular files below a folder, links followed; each folder is listed once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._inside: dict[str, frozenset[str]] = {}

    def __contains__(self, path: str) -> bool:
        parent, _, name = path.rpartition("/")
        if parent not in self._inside:
            try:
                with os.scandir(self.folder / parent) as entries:
                    self._inside[parent] = frozenset(entry.name for entry in entries if _is_file(entry))
            except (FileNotFoundError, NotADirectoryError):
                self._inside[parent] = frozenset()
        return name in self._inside[parent]


def _is_file(entry: os.DirEntry[str]) -> bool:
    # Not entry.is_file() alone, which raises for a cycle of links.
    return os.path.isfile(entry) if entry.is_symlink() else entry.is_file()


def located(images: ImageList, tree: Tree, elsewhere: Elsewhere | None = None) -> list[str]:
    """The path of every image of a list below the tree.

    Raises DataNotFoundError with the number of missing images and the paths tried for the first, and ValueError for an
    absolute path to an existing file outside the tree.
    """
    paths: list[str] = []
    missing: list[tuple[int, list[str]]] = []
    for number, path in enumerate(images.paths):
        candidates = _from_the_right(path)
        file = next((candidate for candidate in candidates if candidate in tree), None)
        if file is None and elsewhere is not None:
            candidates += elsewhere(path, images.labels[number])
            file = next((candidate for candidate in candidates if candidate in tree), None)
        if file is None:
            missing.append((images.lines[number], candidates))
        else:
            if path.startswith("/") and os.path.isfile(path) and not os.path.samefile(path, tree.folder / file):
                raise ValueError(
                    f"{images.file}:{images.lines[number]}: expected a file below {tree.folder}, got {path}, which is "
                    f"there and is not {tree.folder / file}"
                )
            paths.append(file)
    if missing:
        line, candidates = missing[0]
        raise DataNotFoundError(
            f"{images.file}:{line}: {len(missing)} of {len(images.paths)} listed images are not below {tree.folder} as "
            f"files; the first was expected at {', '.join(candidates)}. The parameter 'path' names another folder"
        )
    return paths


def _from_the_right(path: str) -> list[str]:
    names = _names(path)
    return ["/".join(names[start:]) for start in range(len(names))]

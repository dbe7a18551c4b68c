"""A folder of images for each class, as torchvision lays data sets out.

What counts: files with the suffix of an image at any depth below a class's folder. Names that begin with a dot are left
out, folders and files alike, and files of other suffixes. A link to a file is that file. A link to a folder is followed
once, but for one that leads back to a folder above it, which would go round in circles.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from signsym_core.datasets.base import DataNotFoundError
from signsym_core.datasets.decode import SUFFIXES
from signsym_core.datasets.files import Listing


def of_classes(tree: Path, train: str, test: str) -> Listing:
    """The listing of TREE/train/CLASS/* and TREE/test/CLASS/*, with the classes of the training part.

    Raises DataNotFoundError for a class without a training image, and ValueError for a folder of test images that is
    none of the classes.
    """
    names = class_names(tree / train)
    others = set(folders(tree / test)) - set(names)
    if others:
        raise ValueError(
            f"{tree / test}: expected the classes of {tree / train}, got a folder {sorted(others)[0]!r} that is none "
            f"of them ({len(others)} such folders)"
        )
    parts = [class_files(tree, part, names) for part in (train, test)]
    refuse_empty(tree / train, names, parts[0][1])
    files = [file for part, _ in parts for file in part]
    labels = torch.tensor([label for _, part in parts for label in part], dtype=torch.int64)
    at = torch.arange(len(files))
    size = len(parts[0][0])
    numbers = torch.cat([torch.arange(len(part)) for part, _ in parts])
    members = {"train": at[:size], "test": at[size:]}
    return Listing(names=names, tree=tree, files=files, labels=labels, members=members, numbers=numbers)


def folders(parent: Path) -> list[str]:
    """The names of the folders in `parent`, in their order, without hidden ones and links back above it."""
    real = os.path.realpath(parent)
    with os.scandir(parent) as entries:
        names = sorted(
            e.name for e in entries if not e.name.startswith(".") and os.path.isdir(e) and not _circle(e, real)
        )
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise ValueError(f"{parent}: expected names of folders in UTF-8, got {os.fsencode(name)!r}") from None
    return names


def class_names(folder: Path) -> list[str]:
    """The names of the class folders, in their order."""
    names = folders(folder)
    if len(names) < 2:
        raise DataNotFoundError(
            f"image folder {folder}: expected a folder for each of at least two classes, got {names}"
        )
    return names


def refuse_empty(folder: Path, names: list[str], labels: list[int]) -> None:
    """Raise DataNotFoundError where a class has no image: it would be a class that nothing can be."""
    empty = [names[number] for number in sorted(set(range(len(names))) - set(labels))]
    if empty:
        raise DataNotFoundError(
            f"image folder {folder}: expected images ({', '.join(sorted(SUFFIXES))}) in the folder of every class, got "
            f"none in {', '.join(map(repr, empty[:5]))} ({len(empty)} of {len(names)} classes)"
        )


def class_files(tree: Path, part: str, names: list[str]) -> tuple[list[str], list[int]]:
    """Images below TREE/PART with the number of their class, ordered by class and name, as paths below `tree`."""
    files: list[str] = []
    labels: list[int] = []
    start = len(str(tree)) + 1
    for label, name in enumerate(names):
        # Folder by folder, not by the separator's place among the characters.
        below = sorted((path[start:] for path in _images(tree / part / name)), key=lambda path: path.split("/"))
        files += below
        labels += [label] * len(below)
    return files, labels


def _images(top: Path) -> list[str]:
    """Paths of the images at any depth below `top`; none where there is no such folder."""
    if not top.is_dir():
        return []
    real_top = os.path.realpath(top)
    images: list[str] = []
    visited: set[str] = set()
    pending: list[tuple[str, str]] = [(str(top), real_top)]
    links: list[tuple[str, str]] = []
    while pending or links:
        # Links last: a folder is called by its own name where it has one here.
        folder, real = pending.pop() if pending else links.pop(0)
        if real in visited:
            continue
        visited.add(real)
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    pending.append((entry.path, os.path.join(real, entry.name)))
                # Not entry.is_dir(), which raises for a link in circles.
                elif entry.is_symlink() and os.path.isdir(entry):
                    if not _circle(entry, real) and not _above(os.path.realpath(entry.path), real_top):
                        links.append((entry.path, os.path.realpath(entry.path)))
                elif os.path.splitext(entry.name)[1].lower() in SUFFIXES:
                    images.append(entry.path)
    return images


def _circle(entry: os.DirEntry[str], parent: str) -> bool:
    """Whether an entry of the folder `parent` is a link to that folder or to one above it."""
    return entry.is_symlink() and _above(os.path.realpath(entry.path), parent)


def _above(folder: str, other: str) -> bool:
    return os.path.commonpath([folder, other]) == folder

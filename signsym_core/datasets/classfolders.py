"""A folder of images for each class, as torchvision lays data sets out.

Read are files with the suffix of an image, at any depth below a class's folder. Folders and files whose names begin
with a dot, and files with other suffixes, are ignored. A link to a file counts as that file. A link to a folder is
followed once; a link that leads back to a folder above it, which would form a cycle, is ignored.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch

from signsym_core.datasets.decode import SUFFIXES
from signsym_core.datasets.files import Listing
from signsym_core.datasets.splits import DataNotFoundError


def of_classes(tree: Path, train: str, test: str) -> Listing:
    """The listing of TREE/train/CLASS/* and TREE/test/CLASS/*, with the classes of the training split.

    Raises DataNotFoundError for a class without a training image, and ValueError for a folder of test images that is
    none of the classes.
    """
    names = class_names(tree / train)
    unknown = set(folders(tree / test)) - set(names)
    if unknown:
        raise ValueError(
            f"{tree / test}: expected the classes of {tree / train}, got a folder {sorted(unknown)[0]!r} that is none "
            f"of them ({len(unknown)} such folders)"
        )
    listed = [class_files(tree, folder, names) for folder in (train, test)]
    refuse_empty(tree / train, names, listed[0][1])
    files = [file for split_files, _ in listed for file in split_files]
    labels = torch.tensor([label for _, split_labels in listed for label in split_labels], dtype=torch.int64)
    positions = torch.arange(len(files))
    size = len(listed[0][0])
    numbers = torch.cat([torch.arange(len(split_files)) for split_files, _ in listed])
    members = {"train": positions[:size], "test": positions[size:]}
    return Listing(names=names, tree=tree, files=files, labels=labels, members=members, numbers=numbers)


def folders(parent: Path) -> list[str]:
    """The sorted names of the folders in `parent`, without hidden ones and links that lead back above it."""
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
    """The sorted names of the class folders."""
    names = folders(folder)
    if len(names) < 2:
        raise DataNotFoundError(
            f"image folder {folder}: expected a folder for each of at least two classes, got {names}"
        )
    return names


def refuse_empty(folder: Path, names: list[str], labels: list[int]) -> None:
    """Raise DataNotFoundError where a class has no image."""
    empty = [names[number] for number in sorted(set(range(len(names))) - set(labels))]
    if empty:
        raise DataNotFoundError(
            f"image folder {folder}: expected images ({', '.join(sorted(SUFFIXES))}) in the folder of every class, got "
            f"none in {', '.join(map(repr, empty[:5]))} ({len(empty)} of {len(names)} classes)"
        )


def class_files(tree: Path, folder: str, names: list[str]) -> tuple[list[str], list[int]]:
    """Images below TREE/FOLDER with the number of their class, ordered by class and name, as paths below `tree`."""
    files: list[str] = []
    labels: list[int] = []
    start = len(str(tree)) + 1
    for label, name in enumerate(names):
        # Sorted by path components, because "/" sorts after some characters of names.
        below = sorted((path[start:] for path in _images(tree / folder / name)), key=lambda path: path.split("/"))
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
        # Links last, so that a folder inside the tree is listed by its real path.
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
                # Not entry.is_dir(), which raises for a cycle of links.
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

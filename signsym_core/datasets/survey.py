"""The size and modification time of a data set's files, which must be regular files without duplicates."""

from __future__ import annotations

import dataclasses
import errno
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from signsym_core.datasets.decode import irregular
from signsym_core.datasets.splits import DataNotFoundError


@dataclasses.dataclass(frozen=True, kw_only=True)
class Survey:
    """The files `files` below `tree`, as they were when the data set was loaded."""

    tree: Path
    files: Sequence[str]
    #: int64 [files]: bytes, and nanoseconds of the last change.
    sizes: np.ndarray
    times: np.ndarray


def survey(tree: Path, files: Sequence[str]) -> Survey:
    """The survey of `files` below `tree`, links followed; no file is opened.

    Raises DataNotFoundError for a missing file or a broken link, and ValueError for an irregular file and for two paths
    to one file. Hard links count as different files.
    """
    # Joined as text: a path object for each of many files takes longer than reading its status.
    folder = str(tree)
    stats = [_stat(os.path.join(folder, file)) for file in files]
    _refuse_twice(tree, files, stats)
    return Survey(
        tree=tree,
        files=files,
        sizes=np.array([status.st_size for status in stats], dtype=np.int64),
        times=np.array([status.st_mtime_ns for status in stats], dtype=np.int64),
    )


def _stat(file: str) -> os.stat_result:
    try:
        status = os.stat(file)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):
            raise
        link = f"a link to {os.readlink(file)}, which leads nowhere" if os.path.islink(file) else "nothing"
        raise DataNotFoundError(f"image {file}: expected a regular file, got {link}") from None
    if kind := irregular(status):
        raise ValueError(f"image {file}: expected a regular file, got {kind}; remove it or give it another suffix")
    return status


def _refuse_twice(tree: Path, files: Sequence[str], stats: Sequence[os.stat_result]) -> None:
    # One number for device and inode; where two files share it by chance, their real paths differ.
    inodes = np.array([(status.st_ino ^ status.st_dev << 44) % 2**64 for status in stats], dtype=np.uint64)
    _, place, counts = np.unique(inodes, return_inverse=True, return_counts=True)
    seen: dict[str, str] = {}
    for index in np.flatnonzero(counts[place] > 1).tolist():
        # Hard links have different real paths; symbolic links to one file have the same.
        real = os.path.realpath(tree / files[index])
        if seen.setdefault(real, files[index]) != files[index]:
            raise ValueError(
                f"{tree}: expected each image once, got {seen[real]} and {files[index]}, which a link makes one file "
                f"({real}); remove one of them"
            )

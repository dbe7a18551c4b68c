"""Decoded images in one file per data set and size, filled image by image, by any number of processes.

A cache is a folder `NAME-KEY` with

    index.json    the number of images, their height and width, the folder of their files, and a digest of all this
    marks         28 bytes per image: missing, ready or broken, the digest of its file, a checksum of its pixels
    pixels        uint8 [images, 3, height, width]; a sparse file, in which missing images take no room; or instead
    packed        the same, each image losslessly compressed (`signsym_core.datasets.pixels`)
    broken.jsonl  a line for each broken image with the reason
    lock          held by the process that fills it

Three rules hold after a kill at any instant, and on a file system that many nodes share: a mark says "ready" only once
its pixels are on disk; index.json appears atomically, after files of the right length; and every process writes the
same bytes to the same place, so the lock saves work but correctness does not depend on it. KEY hashes everything that
decides a pixel, each file's name, size and modification time included: a replaced file makes another cache.

Damage (a flipped bit, a truncated file, another program's bytes) is noticed when a process first reads an image, and
repaired from the image's file with a CacheDamageWarning.
"""

from __future__ import annotations

import contextlib
import errno
import json
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.cachefill import ChangedFileError as ChangedFileError
from signsym_core.datasets.cachefill import decode_into, unmark
from signsym_core.datasets.cachefolder import cache_folder, create, index_of, locked, pixels_in
from signsym_core.datasets.decoders import cores
from signsym_core.datasets.mapped import Mapped
from signsym_core.datasets.marks import BROKEN, MISSING, believed, differing
from signsym_core.datasets.pixels import Pixels
from signsym_core.datasets.splits import DataWarning, Progress
from signsym_core.datasets.survey import Survey

#: Images whose pixels a thread compares with their marks.
CHECKED = 256


class CacheDamageWarning(DataWarning):
    """Decoded images are damaged; they are decoded again."""


class Cache:
    """The decoded images of the files of `survey`."""

    def __init__(self, survey: Survey, pixels: Pixels) -> None:
        self.folder, self.survey, self.pixels = pixels.folder, survey, pixels
        self._marks: np.ndarray | None = None
        #: Images whose pixels this process has compared with their marks, and images that it has repaired.
        self._checked = torch.zeros(len(survey.files), dtype=torch.bool)
        self._mended: set[int] = set()
        self._warned = False

    @property
    def marks(self) -> np.ndarray:
        """The marks as this process last read them."""
        return self._read_marks() if self._marks is None else self._marks

    def states(self) -> Tensor:
        """int64 [images]: MISSING, READY or BROKEN."""
        return torch.from_numpy(self.marks["state"].astype(np.int64))

    def digests(self, positions: Tensor) -> Tensor:
        """uint8 [n, 16]: digests of the files that the images at `positions` were decoded from."""
        return torch.from_numpy(self.marks["file"][positions.numpy()])

    def reasons(self) -> dict[int, str]:
        """The reason why each broken image is broken, with its file name, by position."""
        try:
            lines = (self.folder / "broken.jsonl").read_text(errors="replace").splitlines()
        except FileNotFoundError:
            return {}
        reasons = {}
        for line in lines:
            # A kill may leave half a line at the end; the image's mark is then still missing.
            with contextlib.suppress(ValueError, KeyError, TypeError):
                entry = json.loads(line)
                reasons[int(entry["image"])] = str(entry["reason"])
        return reasons

    def fill(self, positions: Tensor, progress: Progress | None = None) -> None:
        """Decode the missing images among `positions`, unless another process does it first.

        Raises OSError where a file cannot be read or the disk is full, and ChangedFileError for a file whose size or
        modification time is not that in `survey`; images decoded until then are kept.
        """
        if not self._missing(positions).any():
            return
        with locked(self.folder):
            missing = positions[self._missing(positions)].unique()
            before = len(positions) - len(missing)
            report = progress or (lambda done, total: None)
            decode_into(self.pixels, self.survey, missing, lambda done: report(before + done, len(positions)))
        self._read_marks()

    def _missing(self, positions: Tensor) -> Tensor:
        """bool [positions]: which images have no mark on disk, a damaged one, or a mark "broken" without a reason."""
        marks = self._read_marks()
        states = marks["state"][positions.numpy()]
        missing = states == MISSING
        if (states == BROKEN).any():
            missing |= (states == BROKEN) & ~np.isin(positions.numpy(), list(self.reasons()))
        return torch.from_numpy(missing)

    def _read_marks(self) -> np.ndarray:
        self._marks, damaged = believed((self.folder / "marks").read_bytes())
        if damaged and not self._warned:
            self._warned = True
            self._warn(f"{damaged} of {len(self._marks)} images have damaged marks")
        return self._marks

    def images(self, positions: Tensor, resident: int) -> Tensor | Mapped:
        """The images at `positions`, in memory where they take at most `resident` bytes, else mapped."""
        mapped = Mapped(self.pixels.mapped(), positions, self.check)
        return mapped if mapped.nbytes > resident else mapped[:]

    def check(self, positions: Tensor, images: Tensor) -> bool:
        """Whether `images`, read from the cache, are the decoded ones; damaged images are decoded again.

        Each image is compared with its mark once per process; a compressed one each time, since one damaged bit there
        leaves nothing of it. Raises ChangedFileError where the file's bytes have changed since it was decoded, and
        OSError where the disk returns other bytes than were written.
        """
        fresh = (~self._checked[positions]).nonzero().flatten()
        if not len(fresh):
            return True
        damaged = self._damaged(positions, images, fresh)
        if damaged:
            self._mend(damaged)
            return False
        self._checked[positions] = not self.pixels.compressed
        return True

    def _damaged(self, positions: Tensor, images: Tensor, fresh: Tensor) -> list[int]:
        checks = self.marks["pixels"][positions.numpy()]

        def of(chunk: Tensor) -> list[int]:
            # A slice is no copy; checked images between fresh ones are checked again.
            first, last = int(chunk[0]), int(chunk[-1]) + 1
            return [first + row for row in differing(images[first:last], checks[first:last].tolist())]

        chunks = fresh.split(CHECKED)
        if len(chunks) == 1:
            wrong = of(chunks[0])
        else:
            with ThreadPoolExecutor(cores()) as pool:
                wrong = [row for rows in pool.map(of, chunks) for row in rows]
        return sorted({int(positions[row]) for row in wrong})

    def _mend(self, damaged: list[int]) -> None:
        """Decode the images at the positions `damaged` again."""
        if self._mended & set(damaged):
            raise OSError(errno.EIO, f"images read back are not those written; delete {self.folder}, check the disk")
        self._mended |= set(damaged)
        named = self.survey.files[damaged[0]]
        self._warn(f"{len(damaged)} of {len(self.survey.files)} decoded images are damaged ({named} first)")
        before = self.marks["file"][damaged].copy()
        with locked(self.folder):
            unmark(self.folder, damaged)
        self.fill(torch.tensor(damaged))
        changed = (self.marks["file"][damaged] != before).any(1)
        if changed.any():
            file = self.survey.tree / self.survey.files[damaged[int(changed.argmax())]]
            raise ChangedFileError(
                f"image {file}: expected the bytes that were decoded before, got others, though size and time of "
                f"change are the same. Put the file back, or delete {self.folder} to decode all images anew"
            )

    def _warn(self, damage: str) -> None:
        warnings.warn(f"cache {self.folder}: {damage}; they are decoded again", CacheDamageWarning, stacklevel=2)


def open_cache(place: Path, name: str, survey: Survey, side: int | None, compress: bool = False) -> Cache:
    """The cache below `place` of the images of `survey` with the side `side`, created empty where it does not exist.

    Where it exists, it stays compressed or not, as it is; where it does not, `compress` decides.

    Images keep their size where all are squares of one size no larger than `side`, or where `side` is null and all have
    one size; otherwise they are scaled until the shorter side is `side` and cropped to the middle square. Raises
    ValueError where `side` is null and sizes differ, and OSError where `place` cannot be written.
    """
    folder = cache_folder(place, name, survey, side)
    index = index_of(folder, len(survey.files))
    if not isinstance(index, dict):
        with locked(folder):
            index = index_of(folder, len(survey.files))
            if not isinstance(index, dict):
                if index:
                    warnings.warn(f"cache {folder}: {index}; it is repaired", CacheDamageWarning, stacklevel=2)
                index = create(folder, survey, side, compress)
    return Cache(survey, pixels_in(folder, len(survey.files), index["height"], index["width"]))

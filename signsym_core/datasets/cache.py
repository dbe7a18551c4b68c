"""Decoded images in one file per data set and size, filled image by image, by any number of processes.

A cache is a folder `NAME-KEY` with

    index.json    how many images, their height and width, what they were made from, and a digest of that
    marks         28 bytes per image: not there yet, there or broken, the digest of its file, a check of its pixels
    pixels        uint8 [images, 3, height, width]; what is not there yet takes no room on disk
    broken.jsonl  a line for each broken image with the reason
    lock          held by the process that fills it

What must hold after a kill at any instant, and on a file system that many nodes share: a mark says "there" only once
its pixels are on disk; index.json appears whole, after files of the right length; and every process writes the same
bytes to the same place, so the lock saves work but correctness does not rest on it. KEY hashes what decides a pixel,
each file's name, size and time of change included: a file that is replaced makes another cache.

Damage (a flipped bit, a cut file, another program's bytes) is noticed when an image is first read in a process, and
mended from the image's file with a CacheDamageWarning.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import uuid
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.base import DataWarning
from signsym_core.datasets.decode import BrokenImageError, decoded, extent, opened
from signsym_core.datasets.mapped import Mapped
from signsym_core.datasets.marks import BROKEN, DIGEST, MARK, MISSING, READY, believed, differing, mark
from signsym_core.datasets.survey import Survey

#: Raised when other pixels come from the same files, or a cache is laid out in another way.
VERSION = 2
#: Images between two moments at which what was decoded is safe on disk.
CHUNK = 256

#: Told how many of how many images are done.
Progress = Callable[[int, int], None]


class CacheDamageWarning(DataWarning):
    """Decoded images that were damaged, and are decoded again."""


class ChangedFileError(ValueError):
    """An image file that is no longer the one that was listed, or decoded before."""


class Cache:
    """The decoded images of the files of `survey`, height x width pixels each, in `folder`."""

    def __init__(self, folder: Path, survey: Survey, height: int, width: int) -> None:
        self.folder, self.survey, self.height, self.width = folder, survey, height, width
        self._marks: np.ndarray | None = None
        #: Images whose pixels this process has held against their marks, and those that it has mended.
        self._checked = torch.zeros(len(survey.files), dtype=torch.bool)
        self._mended: set[int] = set()
        self._said = False

    @property
    def bytes_per_image(self) -> int:
        return 3 * self.height * self.width

    @property
    def marks(self) -> np.ndarray:
        """The marks as this process last read them."""
        return self._read_marks() if self._marks is None else self._marks

    def states(self) -> Tensor:
        """int64 [images]: MISSING, READY or BROKEN."""
        return torch.from_numpy(self.marks["state"].astype(np.int64))

    def digests(self, positions: Tensor) -> Tensor:
        """uint8 [n, 16]: of the files that the images at `positions` were decoded from."""
        return torch.from_numpy(self.marks["file"][positions.numpy()])

    def reasons(self) -> dict[int, str]:
        """Why images are broken, by their position; the file names are in the text."""
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

    def fill(self, wanted: Tensor, progress: Progress | None = None) -> None:
        """Decode what is missing of the images at the positions `wanted`, unless another process does it first.

        Raises OSError where a file cannot be read or the disk is full, and ChangedFileError for a file that is not as
        `survey` has it; what was done until then is kept.
        """
        if not self._missing(wanted).any():
            return
        with locked(self.folder):
            missing = wanted[self._missing(wanted)].unique()
            done = len(wanted) - len(missing)
            with contextlib.ExitStack() as stack:
                pixels, marks = (
                    stack.enter_context(open(self.folder / name, "r+b", 0)) for name in ("pixels", "marks")
                )
                pool = stack.enter_context(ThreadPoolExecutor(_cores()))
                for chunk in missing.split(CHUNK):
                    self._fill_chunk(chunk.tolist(), pool, pixels.fileno(), marks.fileno())
                    done += len(chunk)
                    if progress is not None:
                        progress(done, len(wanted))
        self._read_marks()

    def _missing(self, wanted: Tensor) -> Tensor:
        """bool [wanted]: which images have no mark on disk, a damaged one, or one that says broken without a reason."""
        marks = self._read_marks()
        states = marks["state"][wanted.numpy()]
        missing = states == MISSING
        if (states == BROKEN).any():
            missing |= (states == BROKEN) & ~np.isin(wanted.numpy(), list(self.reasons()))
        return torch.from_numpy(missing)

    def _read_marks(self) -> np.ndarray:
        self._marks, damaged = believed((self.folder / "marks").read_bytes())
        if damaged and not self._said:
            self._said = True
            self._say(f"{damaged} of {len(self._marks)} images have damaged marks")
        return self._marks

    def _fill_chunk(self, chunk: list[int], pool: ThreadPoolExecutor, pixels: int, marks: int) -> None:
        """Decoding leaves Python, so threads share the work."""
        fresh: dict[int, bytes] = {}
        reasons = []
        for at, (digest, result) in zip(chunk, pool.map(self._decode, chunk), strict=True):
            if isinstance(result, bytes):
                _write(pixels, result, at * self.bytes_per_image)
                fresh[at] = mark(at, READY, digest, result)
            else:
                reasons.append(json.dumps({"image": at, "reason": str(result)}) + "\n")
                fresh[at] = mark(at, BROKEN, digest, b"")
        if reasons:
            with open(self.folder / "broken.jsonl", "a") as file:
                # A line of its own, whatever a killed process left.
                file.write("\n" + "".join(reasons))
                file.flush()
                os.fsync(file.fileno())
        os.fsync(pixels)
        for at, content in fresh.items():
            _write(marks, content, at * MARK.itemsize)
        os.fsync(marks)

    def _decode(self, at: int) -> tuple[bytes, bytes | BrokenImageError]:
        """The digest of a file and its pixels, or why there are none."""
        file = self.survey.tree / self.survey.files[at]
        try:
            reader, status = opened(file)
        except BrokenImageError as error:
            return bytes(DIGEST), error
        with reader:
            data = reader.read()
        if (status.st_size, status.st_mtime_ns) != (self.survey.sizes[at], self.survey.times[at]):
            raise ChangedFileError(
                f"image {file}: expected the file as it was listed ({self.survey.sizes[at]:,} bytes), got one that was "
                f"changed since ({status.st_size:,} bytes). Run it again when nothing writes to {self.survey.tree}"
            )
        digest = hashlib.sha256(data).digest()[:DIGEST]
        try:
            array = decoded(data, file, self.height if self.height == self.width else None)
        except BrokenImageError as error:
            return digest, error
        if array.shape != (self.height, self.width, 3):
            return digest, BrokenImageError(
                f"image {file}: expected {self.height} x {self.width} pixels, got {array.shape[:2]}"
            )
        return digest, np.ascontiguousarray(array.transpose(2, 0, 1)).tobytes()

    def images(self, positions: Tensor, resident: int) -> Tensor | Mapped:
        """The images at `positions`, in memory where they take at most `resident` bytes, else mapped."""
        shape = (3, self.height, self.width)
        mapped = Mapped(self.folder / "pixels", len(self.survey.files), shape, positions, self.check)
        return mapped if mapped.nbytes > resident else mapped[:]

    def check(self, positions: Tensor, images: Tensor) -> bool:
        """Whether `images`, read from the cache, are what was decoded; what is not is decoded again.

        Each image is held against its mark once in a process. Raises ChangedFileError where the file has other bytes
        than when it was decoded, and OSError where the disk gives back other bytes than it was given.
        """
        fresh = (~self._checked[positions]).nonzero().flatten()
        if not len(fresh):
            return True
        damaged = self._damaged(positions, images, fresh)
        if damaged:
            self._mend(damaged)
            return False
        self._checked[positions] = True
        return True

    def _damaged(self, positions: Tensor, images: Tensor, fresh: Tensor) -> list[int]:
        checks = self.marks["pixels"][positions.numpy()]

        def of(chunk: Tensor) -> list[int]:
            # A slice is no copy; what lies between fresh images is looked at again.
            first, last = int(chunk[0]), int(chunk[-1]) + 1
            return [first + at for at in differing(images[first:last], checks[first:last].tolist())]

        chunks = fresh.split(CHUNK)
        if len(chunks) == 1:
            wrong = of(chunks[0])
        else:
            with ThreadPoolExecutor(_cores()) as pool:
                wrong = [at for part in pool.map(of, chunks) for at in part]
        return sorted({int(positions[at]) for at in wrong})

    def _mend(self, damaged: list[int]) -> None:
        """Decode the images at the positions `damaged` once more."""
        if self._mended & set(damaged):
            raise OSError(errno.EIO, f"images read back are not those written; delete {self.folder}, check the disk")
        self._mended |= set(damaged)
        named = self.survey.files[damaged[0]]
        self._say(f"{len(damaged)} of {len(self.survey.files)} decoded images are damaged ({named} first)")
        before = self.marks["file"][damaged].copy()
        with locked(self.folder), open(self.folder / "marks", "r+b", 0) as marks:
            for at in damaged:
                _write(marks.fileno(), bytes(MARK.itemsize), at * MARK.itemsize)
        self.fill(torch.tensor(damaged))
        changed = (self.marks["file"][damaged] != before).any(1)
        if changed.any():
            file = self.survey.tree / self.survey.files[damaged[int(changed.argmax())]]
            raise ChangedFileError(
                f"image {file}: expected the bytes that were decoded before, got others, though size and time of "
                f"change are the same. Put the file back, or delete {self.folder} to decode all images anew"
            )

    def _say(self, what: str) -> None:
        warnings.warn(f"cache {self.folder}: {what}; they are decoded again", CacheDamageWarning, stacklevel=2)


def open_cache(place: Path, name: str, survey: Survey, side: int | None) -> Cache:
    """The cache below `place` of the images of `survey` for the side `side`, made empty where there is none.

    Images are kept as they are where all are squares of one size no larger than `side`, or of one size at all where
    `side` is null; otherwise they are scaled until the shorter side is `side` and cut to the middle square. Raises
    ValueError where `side` is null and sizes differ, and OSError where `place` cannot be written.
    """
    folder = cache_folder(place, name, survey, side)
    index = _index(folder, len(survey.files))
    if not isinstance(index, dict):
        with locked(folder):
            index = _index(folder, len(survey.files))
            if not isinstance(index, dict):
                if index:
                    warnings.warn(f"cache {folder}: {index}; it is mended", CacheDamageWarning, stacklevel=2)
                index = _create(folder, survey, side)
    return Cache(folder, survey, index["height"], index["width"])


def cache_folder(place: Path, name: str, survey: Survey, side: int | None) -> Path:
    """Where below `place` the decoded images of `survey` belong, there or not."""
    marks = list(zip(survey.files, survey.sizes.tolist(), survey.times.tolist(), strict=True))
    text = json.dumps([VERSION, name, side, marks], separators=(",", ":"))
    return place / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def _index(folder: Path, count: int) -> dict[str, Any] | str:
    """What index.json says of a cache that is in order; else what is wrong with it, nothing where there is none yet."""
    for name in ("index.json", "marks", "pixels"):
        if (folder / name).exists() and not (folder / name).is_file():
            raise ValueError(f"cache {folder}: expected a regular file {name}; delete the folder")
    try:
        index = json.loads((folder / "index.json").read_bytes())
    except FileNotFoundError:
        return ""
    except ValueError:
        return "index.json is damaged"
    if (
        not isinstance(index, dict)
        or index.pop("digest", None) != _digest(index)
        or (index["version"], index["images"]) != (VERSION, count)
    ):
        return "index.json is damaged or of another version"
    sizes = {"pixels": count * 3 * index["height"] * index["width"], "marks": count * MARK.itemsize}
    for name, size in sizes.items():
        length = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if length != size:
            return f"{name} has {length:,} bytes instead of {size:,}"
    return index


def _digest(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def _create(folder: Path, survey: Survey, side: int | None) -> dict[str, Any]:
    height, width = _kept_extent(survey, side)
    count = len(survey.files)
    for name, size in (("pixels", count * height * width * 3), ("marks", count * MARK.itemsize)):
        # What an earlier process left is right as far as it goes: marks tell.
        with open(folder / name, "ab") as file:
            os.truncate(file.fileno(), size)
            os.fsync(file.fileno())
    index: dict[str, Any] = {"version": VERSION, "images": count, "height": height, "width": width, "channels": 3}
    index |= {"tree": str(survey.tree)}
    write_whole(folder / "index.json", json.dumps(index | {"digest": _digest(index)}, indent=1).encode())
    return index


def _kept_extent(survey: Survey, side: int | None) -> tuple[int, int]:
    """Height and width that the cache keeps; headers are read until one decides."""
    kept: tuple[int, int] | None = None
    with ThreadPoolExecutor(_cores()) as pool:
        for start in range(0, len(survey.files), CHUNK):
            group = [survey.tree / file for file in survey.files[start : start + CHUNK]]
            for file, found in zip(group, pool.map(extent, group), strict=True):
                if found is None:
                    continue
                if side is not None and (found[0] != found[1] or found[0] > side or (kept or found) != found):
                    return side, side
                if kept is not None and found != kept:
                    raise ValueError(
                        f"images below {survey.tree} differ in size ({kept[0]} x {kept[1]} pixels; {file} has "
                        f"{found[0]} x {found[1]}): set the parameter 'size'"
                    )
                kept = found
    # Where no header can be read at all, every image will be named as broken.
    return kept or (side or 1, side or 1)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, or go on without one where the file system knows no locks."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "lock", "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield


def write_whole(file: Path, content: bytes) -> None:
    """Put `content` at `file` so that it is there whole or not at all."""
    fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    with open(fresh, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(fresh, file)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    # One call may write less than it was given.
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1

"""Decoded images in one file per data set and size, filled image by image, by any number of processes.

A cache is a folder `NAME-KEY` with

    index.json    how many images, their height and width, and what they were made from
    state         a byte per image: 0 not there yet, 1 there, 2 broken
    pixels        uint8 [images, 3, height, width]; what is not there yet takes no room on disk
    broken.jsonl  a line for each broken image with the reason
    lock          held by the process that fills it

What must hold after a kill at any instant, and on a file system that many nodes share: a state byte says 1 only once
its pixels are on disk; index.json appears whole, after files of the right length; and every process writes the same
bytes to the same place, so the lock saves work but correctness does not rest on it. KEY hashes what decides a pixel,
each file's name, size and time of change included: a file that is replaced makes another cache.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from signsym_core.datasets.decode import BrokenImageError, extent, read
from signsym_core.datasets.mapped import Mapped

#: Raised when other pixels come from the same files.
VERSION = 1
#: Images between two moments at which what was decoded is safe on disk.
CHUNK = 256
MISSING, READY, BROKEN = 0, 1, 2

#: Told how many of how many images are done.
Progress = Callable[[int, int], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cache:
    """The decoded images of `files`, which lie below `tree`."""

    folder: Path
    tree: Path
    files: Sequence[str]
    height: int
    width: int

    @property
    def bytes_per_image(self) -> int:
        return 3 * self.height * self.width

    def states(self) -> Tensor:
        """uint8 [images]: MISSING, READY or BROKEN."""
        return torch.from_numpy(np.fromfile(self.folder / "state", dtype=np.uint8))

    def reasons(self) -> dict[int, str]:
        """Why images are broken, by their position; the file names are in the text."""
        try:
            lines = (self.folder / "broken.jsonl").read_text().splitlines()
        except FileNotFoundError:
            return {}
        found = {}
        for line in lines:
            # A kill may leave half a line at the end; the image's state is then still MISSING.
            with contextlib.suppress(ValueError):
                entry = json.loads(line)
                found[int(entry["image"])] = str(entry["reason"])
        return found

    def fill(self, wanted: Tensor, progress: Progress | None = None) -> None:
        """Decode what is missing of the images at the positions `wanted`, unless another process does it first.

        Raises OSError where a file cannot be read or the disk is full; what was done until then is kept.
        """
        if not (self.states()[wanted] == MISSING).any():
            return
        with locked(self.folder):
            missing = wanted[self.states()[wanted] == MISSING].unique()
            done = len(wanted) - len(missing)
            with contextlib.ExitStack() as stack:
                pixels, state = (
                    stack.enter_context(open(self.folder / name, "r+b", 0)) for name in ("pixels", "state")
                )
                pool = stack.enter_context(ThreadPoolExecutor(_cores()))
                for chunk in missing.split(CHUNK):
                    self._fill_chunk(chunk.tolist(), pool, pixels.fileno(), state.fileno())
                    done += len(chunk)
                    if progress is not None:
                        progress(done, len(wanted))

    def _fill_chunk(self, chunk: list[int], pool: ThreadPoolExecutor, pixels: int, state: int) -> None:
        """Decoding leaves Python, so threads share the work."""
        marks: dict[int, int] = {}
        reasons = []
        for at, result in zip(chunk, pool.map(self._decode, chunk), strict=True):
            marks[at] = READY if isinstance(result, bytes) else BROKEN
            if isinstance(result, bytes):
                _write(pixels, result, at * self.bytes_per_image)
            else:
                reasons.append(json.dumps({"image": at, "reason": str(result)}) + "\n")
        if reasons:
            with open(self.folder / "broken.jsonl", "a") as file:
                # A line of its own, whatever a killed process left.
                file.write("\n" + "".join(reasons))
                file.flush()
                os.fsync(file.fileno())
        os.fsync(pixels)
        for at, mark in marks.items():
            _write(state, bytes([mark]), at)
        os.fsync(state)

    def _decode(self, at: int) -> bytes | BrokenImageError:
        file = self.tree / self.files[at]
        try:
            array = read(file, self.height if self.height == self.width else None)
        except BrokenImageError as error:
            return error
        if array.shape != (self.height, self.width, 3):
            return BrokenImageError(
                f"image {file}: expected {self.height} x {self.width} pixels, got {array.shape[:2]}"
            )
        return np.ascontiguousarray(array.transpose(2, 0, 1)).tobytes()

    def images(self, positions: Tensor, resident: int) -> Tensor | Mapped:
        """The images at `positions`, in memory where they take at most `resident` bytes, else mapped."""
        mapped = Mapped(self.folder / "pixels", len(self.files), (3, self.height, self.width), positions)
        return mapped if mapped.nbytes > resident else mapped[:]


def open_cache(place: Path, name: str, tree: Path, files: Sequence[str], side: int | None) -> Cache:
    """The cache below `place` of the images `files` for the side `side`, made empty where there is none.

    Images are kept as they are where all are squares of one size no larger than `side`, or of one size at all where
    `side` is null; otherwise they are scaled until the shorter side is `side` and cut to the middle square. Raises
    ValueError where `side` is null and sizes differ, and OSError where a file is gone or `place` cannot be written.
    """
    folder = cache_folder(place, name, tree, files, side)
    try:
        found = json.loads((folder / "index.json").read_text())
    except FileNotFoundError:
        with locked(folder):
            found = _create(folder, tree, files, side)
    return Cache(folder=folder, tree=tree, files=files, height=found["height"], width=found["width"])


def cache_folder(place: Path, name: str, tree: Path, files: Sequence[str], side: int | None) -> Path:
    """Where below `place` the decoded images of `files` belong, there or not. Raises OSError where a file is gone."""
    stats = [os.stat(tree / file) for file in files]
    marks = [[file, stat.st_size, stat.st_mtime_ns] for file, stat in zip(files, stats, strict=True)]
    text = json.dumps([VERSION, name, side, marks], separators=(",", ":"))
    return place / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def _create(folder: Path, tree: Path, files: Sequence[str], side: int | None) -> dict[str, int]:
    index = folder / "index.json"
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads(index.read_text()))
    height, width = _kept_extent(tree, files, side)
    for name, size in (("pixels", len(files) * height * width * 3), ("state", len(files))):
        # Lengthened and never cut: what an earlier process left is right as far as it goes.
        with open(folder / name, "ab") as file:
            os.truncate(file.fileno(), size)
            os.fsync(file.fileno())
    found = {"images": len(files), "height": height, "width": width, "channels": 3}
    write_whole(index, json.dumps(found | {"tree": str(tree)}, indent=1).encode())
    return found


def _kept_extent(tree: Path, files: Sequence[str], side: int | None) -> tuple[int, int]:
    """Height and width that the cache keeps; headers are read until one decides."""
    kept: tuple[int, int] | None = None
    with ThreadPoolExecutor(_cores()) as pool:
        for start in range(0, len(files), CHUNK):
            group = [tree / file for file in files[start : start + CHUNK]]
            for file, found in zip(group, pool.map(extent, group), strict=True):
                if found is None:
                    continue
                if side is not None and (found[0] != found[1] or found[0] > side or (kept or found) != found):
                    return side, side
                if kept is not None and found != kept:
                    raise ValueError(
                        f"images below {tree} differ in size ({kept[0]} x {kept[1]} pixels; {file} has {found[0]} x "
                        f"{found[1]}): set the parameter 'size'"
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

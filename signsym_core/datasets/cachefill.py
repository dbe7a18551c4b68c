"""Fills a cache: decodes images, writes and syncs their pixels, and then the marks that say that they are there."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

from torch import Tensor

from signsym_core.datasets.decode import BrokenImageError, Content
from signsym_core.datasets.decoders import Decoders, cores
from signsym_core.datasets.marks import BROKEN, MARK, READY, mark
from signsym_core.datasets.pixels import Pixels
from signsym_core.datasets.survey import Survey

#: Images that are decoded between two syncs to disk.
CHUNK = 1024


class ChangedFileError(ValueError):
    """An image file changed after it was listed or decoded."""


def decode_into(pixels: Pixels, survey: Survey, missing: Tensor, report: Callable[[int], None]) -> None:
    """Decode the images at the positions `missing` into the cache; `report` gets how many are, after every CHUNK.

    The caller holds the cache's lock. Raises OSError and ChangedFileError; images decoded until then are kept.
    """
    done = 0
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(open(file, "r+b", 0)) for file in (pixels.file, pixels.folder / "marks")]
        decoders = stack.enter_context(Decoders(len(missing)))
        writers = stack.enter_context(ThreadPoolExecutor(cores()))
        filling = _Filling(pixels, survey, decoders, writers, *(file.fileno() for file in files))
        for chunk in missing.split(CHUNK):
            filling.chunk(chunk.tolist())
            done += len(chunk)
            report(done)


@dataclasses.dataclass(frozen=True)
class _Filling:
    """A cache that is filled: who decodes, who compresses and writes, and the descriptors of its open files."""

    pixels: Pixels
    survey: Survey
    decoders: Decoders
    writers: Executor
    pixels_file: int
    marks_file: int

    def chunk(self, chunk: list[int]) -> None:
        """Decode one chunk, sync the pixels, then write the marks."""
        fresh: dict[int, bytes] = {}
        reasons, writes = [], []
        side = self.pixels.height if self.pixels.height == self.pixels.width else None
        files = [f"{self.survey.tree / self.survey.files[position]}" for position in chunk]
        contents = self.decoders.contents(files, side)
        for position, content in zip(chunk, contents, strict=True):
            digest, result = content[0], self._checked(position, content)
            if isinstance(result, bytes):
                writes.append(self.writers.submit(self._store, position, result))
                fresh[position] = mark(position, READY, digest, result)
            else:
                reasons.append(json.dumps({"image": position, "reason": str(result)}) + "\n")
                fresh[position] = mark(position, BROKEN, digest, b"")
        if reasons:
            with open(self.pixels.folder / "broken.jsonl", "a") as file:
                # A new line first: a killed process may have left an unfinished one.
                file.write("\n" + "".join(reasons))
                file.flush()
                os.fsync(file.fileno())
        for write in writes:
            write.result()
        os.fsync(self.pixels_file)
        for position, written in fresh.items():
            _write(self.marks_file, written, position * MARK.itemsize)
        os.fsync(self.marks_file)

    def _store(self, position: int, pixels: bytes) -> None:
        _write(self.pixels_file, self.pixels.stored(pixels), position * self.pixels.slot)

    def _checked(self, position: int, content: Content) -> bytes | BrokenImageError:
        """The pixels of the image at `position`, or the error that explains why it has none."""
        _, version, extent, pixels, reason = content
        file = self.survey.tree / self.survey.files[position]
        if version is not None and version != (self.survey.sizes[position], self.survey.times[position]):
            raise ChangedFileError(
                f"image {file}: expected the file as it was listed ({self.survey.sizes[position]:,} bytes), got one "
                f"that was changed since ({version[0]:,} bytes). Run it again when nothing writes to "
                f"{self.survey.tree}"
            )
        if reason is None and extent != (self.pixels.height, self.pixels.width):
            reason = f"image {file}: expected {self.pixels.height} x {self.pixels.width} pixels, got {extent}"
        return pixels if reason is None else BrokenImageError(reason)


def unmark(folder: Path, positions: Sequence[int]) -> None:
    """Write "missing" as the mark of these images."""
    with open(folder / "marks", "r+b", 0) as marks:
        for position in positions:
            _write(marks.fileno(), bytes(MARK.itemsize), position * MARK.itemsize)


def _write(descriptor: int, content: bytes, offset: int) -> None:
    # One call may write fewer bytes than requested.
    while content:
        written = os.pwrite(descriptor, content, offset)
        content, offset = content[written:], offset + written

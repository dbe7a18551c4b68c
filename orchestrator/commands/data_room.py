"""How much room the decoded images of a data set take, as they are and compressed, and how long they take to make."""

from __future__ import annotations

import contextlib
import shutil
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.console import Console

from signsym_core.datasets.cache import Cache
from signsym_core.datasets.decode import BrokenImageError, read
from signsym_core.datasets.decoders import cores
from signsym_core.datasets.files import FileSource, cache_places, compressing
from signsym_core.datasets.marks import READY
from signsym_core.datasets.pixels import packed

#: Images of the sample that are decoded and compressed for an estimate.
TRIED = 50


def say_missing(
    source: FileSource, root: Path, cache: Cache | None, missing: int, sample: Sequence[Path], console: Console
) -> None:
    """Print the room and time that `missing` images would take, estimated from `sample`."""
    tried = [trial for file in sample[:TRIED] if (trial := _tried(file, source.side)) is not None]
    free = shutil.disk_usage(next(place for place in (root, *root.absolute().parents) if place.exists())).free
    left = f"{free / 1e9:.1f} GB are free below {root}"
    if not tried:
        side = source.side or 0
        room = f"{_bytes(missing * 3 * side**2)}" if side else "kept at the size that they have"
        console.print(f"to decode: {missing:,} images, {room}; {left}")
        return
    size, small, decoding, packing = np.mean(tried, axis=0)
    size = size if cache is None else cache.pixels.bytes_per_image
    compressed = compressing(cache_places(root)[0], source.name) if cache is None else cache.pixels.compressed
    room = _bytes(missing * size * small)
    console.print(
        f"to decode: {missing:,} images, {f'{room} compressed, ' if compressed else ''}{_bytes(missing * size)}"
        f"{' of pixels' if compressed else ''}, about {_time(missing * (decoding + compressed * packing))} on "
        f"{cores()} cores; {left}"
    )
    if not compressed and cache is None:
        console.print(
            f"with --compress: about {room} and {_time(missing * (decoding + packing))}, by {len(tried)} images; "
            "each is decompressed whenever it is read"
        )


def _tried(file: Path, side: int | None) -> tuple[float, float, float, float] | None:
    """An image's bytes of pixels, the share that is left of them, and seconds to decode and to compress it."""
    with contextlib.suppress(BrokenImageError, OSError):
        began = time.thread_time()
        pixels = np.ascontiguousarray(read(file, side).transpose(2, 0, 1))
        decoded = time.thread_time()
        share = min(1.0, len(packed(pixels.tobytes(), (3, *pixels.shape[1:]))) / pixels.nbytes)
        return pixels.nbytes, share, decoded - began, time.thread_time() - decoded
    return None


def say_room(cache: Cache, console: Console) -> None:
    """Print what the decoded images take on the disk."""
    size = int((cache.states() == READY).sum()) * cache.pixels.bytes_per_image
    room = cache.pixels.room
    if not cache.pixels.compressed:
        console.print(f"room: {_bytes(size)}, not compressed")
        return
    share = f" ({room / size:.0%})" if size else ""
    console.print(f"room: {_bytes(room)} on the disk for {_bytes(size)} of pixels{share}")
    if room > 0.95 * size:
        console.print(
            f"nothing is gained: either these images do not compress, or the file system of {cache.folder} keeps no "
            "holes in files; delete the folder, and prepare without --compress"
        )


def _bytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _time(seconds: float) -> str:
    """Seconds of CPU as a time on all cores."""
    minutes = seconds / cores() / 60
    return f"{minutes / 60:.1f} h" if minutes >= 90 else f"{minutes:.0f} min" if minutes >= 1.5 else "a minute"

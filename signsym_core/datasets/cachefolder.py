"""The folder of a cache: its name, its lock, its empty files, and whether they are intact.

What the files are says `signsym_core.datasets.cache`.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from signsym_core.datasets.decoders import Decoders
from signsym_core.datasets.marks import MARK
from signsym_core.datasets.pixels import LONGEST, PACKED, PLAIN, Pixels
from signsym_core.datasets.survey import Survey

#: Increased when the same files give other pixels, or the layout of the cache changes.
VERSION = 2
#: Headers that are read before other processes are started for the rest.
FIRST = 256


def cache_folder(place: Path, name: str, survey: Survey, side: int | None) -> Path:
    """The folder below `place` for the decoded images of `survey`, whether it exists or not."""
    marks = list(zip(survey.files, survey.sizes.tolist(), survey.times.tolist(), strict=True))
    text = json.dumps([VERSION, name, side, marks], separators=(",", ":"))
    return place / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:20]}"


def index_of(folder: Path, count: int) -> dict[str, Any] | str:
    """The content of index.json of an intact cache; else the damage in words, "" where there is no cache yet."""
    for name in ("index.json", "marks", PLAIN, PACKED):
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
    for name, size in _sizes(pixels_in(folder, count, index["height"], index["width"])).items():
        length = (folder / name).stat().st_size if (folder / name).is_file() else 0
        if length != size:
            return f"{name} has {length:,} bytes instead of {size:,}"
    return index


def pixels_in(folder: Path, count: int, height: int, width: int, compress: bool = False) -> Pixels:
    """The file of the pixels, whose name says whether they are compressed; `compress` where there is none yet."""
    compressed = (folder / PACKED).exists() or (compress and not (folder / PLAIN).exists())
    return Pixels(folder=folder, count=count, height=height, width=width, compressed=compressed)


def _sizes(pixels: Pixels) -> dict[str, int]:
    """The length of each file in bytes."""
    return {pixels.file.name: pixels.count * pixels.slot, "marks": pixels.count * MARK.itemsize}


def _digest(index: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(index, sort_keys=True).encode()).hexdigest()


def create(folder: Path, survey: Survey, side: int | None, compress: bool) -> dict[str, Any]:
    """Make the files of an empty cache, compressed if `compress`, or repair its index; the content of index.json."""
    height, width = _kept_extent(survey, side)
    count = len(survey.files)
    pixels = pixels_in(folder, count, height, width, compress)
    if pixels.compressed and max(height, width) > LONGEST:
        raise ValueError(
            f"images below {survey.tree}: expected at most {LONGEST:,} pixels a side where they are compressed, got "
            f"{height} x {width}"
        )
    for name, size in _sizes(pixels).items():
        # Bytes that an earlier process wrote stay: the marks say which of them are valid.
        with open(folder / name, "ab") as file:
            os.truncate(file.fileno(), size)
            os.fsync(file.fileno())
    index: dict[str, Any] = {"version": VERSION, "images": count, "height": height, "width": width, "channels": 3}
    index |= {"tree": str(survey.tree)}
    write_whole(folder / "index.json", json.dumps(index | {"digest": _digest(index)}, indent=1).encode())
    return index


def _kept_extent(survey: Survey, side: int | None) -> tuple[int, int]:
    """Height and width of the cached images; headers are read until one decides it."""
    kept: tuple[int, int] | None = None
    files = [f"{survey.tree / file}" for file in survey.files]
    # The first headers decide it for most data sets: only the rest may be worth other processes.
    for group in (files[:FIRST], files[FIRST:]):
        with Decoders(len(group)) as decoders:
            for file, size in zip(group, decoders.extents(group), strict=True):
                if size is None:
                    continue
                if side is not None and (size[0] != size[1] or size[0] > side or (kept or size) != size):
                    return side, side
                if kept is not None and size != kept:
                    raise ValueError(
                        f"images below {survey.tree} differ in size ({kept[0]} x {kept[1]} pixels; {file} has "
                        f"{size[0]} x {size[1]}): set the parameter 'size'"
                    )
                kept = size
    # Where no header can be read at all, every image will be named as broken.
    return kept or (side or 1, side or 1)


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder's lock, or go on without one where the file system does not support locks.

    Raises OSError that names the remedy where the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = os.open(folder / "lock", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o666)
    except OSError as error:
        words = f"cache {folder} cannot be written ({error.strerror}), and images in it are missing or damaged"
        raise OSError(error.errno, f"{words}: make it writable, or name another folder in SIGNSYM_CACHE") from error
    with open(lock, "w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX)
        except OSError as error:
            if error.errno not in (errno.ENOSYS, errno.ENOLCK, errno.EOPNOTSUPP):
                raise
        yield


def write_whole(file: Path, content: bytes) -> None:
    """Write `content` to `file` atomically."""
    fresh = file.with_name(f".{file.name}.{uuid.uuid4().hex}")
    with open(fresh, "wb") as out:
        out.write(content)
        out.flush()
        os.fsync(out.fileno())
    os.replace(fresh, file)

"""One image file as uint8 pixels. A change here that changes pixels must increase cachefolder.VERSION.

Formats, recognised by content, not by name: JPEG, PNG, BMP, WebP, TIFF and PPM/PGM/PBM; of a file with several pictures
the first. Pillow tries no other format, so that no file can start another program.

Colour becomes RGB: grey is repeated, a palette looked up, CMYK converted, transparency dropped, 16-bit grey scaled to 8
bits, 16-bit colour reduced to its high byte. EXIF orientation and colour profiles are ignored, as in torchvision's
loaders: pixels are as stored in the file. A truncated file is broken, never padded with grey.

Legend: pixels uint8 [height, width, 3].

Run as a program it answers messages on its standard input; it imports nothing of this package.
"""

from __future__ import annotations

import hashlib
import io
import os
import pickle
import signal
import stat
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, UnidentifiedImageError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})
#: Pillow's names of the formats.
FORMATS = ("JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM")
#: Most pixels of an image, before and after scaling: 192 MiB as RGB. Checked in the header, before decoding.
MOST_PIXELS = 2**26
#: Most bytes of a file: more than any image of so many pixels needs.
MOST_BYTES = 2**30


#: Bytes of a file's digest: the first ones of its SHA-256.
DIGEST = 16

Reading = Literal["extent", "content"]
#: What to do with which files, scaled to which side.
Message = tuple[Reading, int | None, Sequence[str]]
#: The file's digest; its bytes and the nanoseconds of its last change, None for a file that was not opened; height,
#: width and the pixels as [3, height, width]; or the reason why it has none.
Content = tuple[bytes, tuple[int, int] | None, tuple[int, int], bytes, str | None]


class BrokenImageError(ValueError):
    """An existing file cannot be decoded; the message names it and says why."""


def opened(file: Path) -> tuple[io.BufferedReader, os.stat_result]:
    """A reader of a regular file (links are followed) and the stat result of the opened file.

    Raises BrokenImageError, without opening it, for anything but a regular file of at most MOST_BYTES, and OSError for
    a file that cannot be read.
    """
    _refuse_irregular(file, os.stat(file))
    # O_NONBLOCK: if it has become a FIFO since, opening does not wait for a writer.
    reader = open(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")  # noqa: SIM115
    try:
        status = os.fstat(reader.fileno())
        _refuse_irregular(file, status)
    except BrokenImageError:
        reader.close()
        raise
    return reader, status


def irregular(status: os.stat_result) -> str | None:
    """The kind of a file that is not regular, in words; None for a regular file."""
    if stat.S_ISREG(status.st_mode):
        return None
    kinds = {
        stat.S_IFDIR: "a folder",
        stat.S_IFIFO: "a FIFO",
        stat.S_IFSOCK: "a socket",
        stat.S_IFCHR: "a device",
        stat.S_IFBLK: "a device",
    }
    return kinds.get(stat.S_IFMT(status.st_mode), "something else")


def _refuse_irregular(file: Path, status: os.stat_result) -> None:
    if kind := irregular(status):
        raise BrokenImageError(f"image {file} cannot be decoded: expected a regular file, got {kind}")
    if status.st_size > MOST_BYTES:
        raise BrokenImageError(
            f"image {file} cannot be decoded: expected at most {MOST_BYTES:,} bytes, got {status.st_size:,}"
        )


def read(file: Path, side: int | None) -> np.ndarray:
    """The pixels of `file`: unchanged, or with a `side` the middle square scaled to side x side.

    Raises BrokenImageError for a file that is no image, is damaged or is too large, and OSError for one that cannot be
    read.
    """
    reader, _ = opened(file)
    with reader:
        return decoded(reader.read(), file, side)


def decoded(data: bytes, file: Path, side: int | None) -> np.ndarray:
    """`read` of the bytes `data` of `file`."""
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            _refuse_large(image.height, image.width, side)
            pixels = _rgb(image)
    except Exception as error:
        raise BrokenImageError(f"image {file} cannot be decoded: {_reason(error, data)}") from error
    return pixels if side is None or pixels.shape[:2] == (side, side) else _squared(pixels, side)


def extent(file: Path) -> tuple[int, int] | None:
    """Height and width in pixels from the header of `file`, or None where it is broken."""
    try:
        reader, _ = opened(file)
        with reader, Image.open(reader, formats=FORMATS) as image:
            return image.height, image.width
    except OSError as error:
        # An error of the operating system has an errno; the image itself may be intact.
        if error.errno is not None:
            raise
        return None
    except Exception:
        return None


def content(file: Path, side: int | None) -> Content:
    """The content of `file`, scaled to `side` like `read`. Raises OSError for a file that cannot be read."""
    try:
        reader, status = opened(file)
    except BrokenImageError as error:
        return bytes(DIGEST), None, (0, 0), b"", str(error)
    with reader:
        data = reader.read()
    version = status.st_size, status.st_mtime_ns
    digest = hashlib.sha256(data).digest()[:DIGEST]
    try:
        pixels = decoded(data, file, side)
    except BrokenImageError as error:
        return digest, version, (0, 0), b"", str(error)
    return digest, version, pixels.shape[:2], np.ascontiguousarray(pixels.transpose(2, 0, 1)).tobytes(), None


def answer(message: Message) -> list[tuple[int, int] | Content | OSError | None]:
    """The results for the files of `message`; for a file that cannot be read the error."""
    reading, side, files = message
    results: list[tuple[int, int] | Content | OSError | None] = []
    for file in map(Path, files):
        try:
            results.append(extent(file) if reading == "extent" else content(file, side))
        except OSError as error:
            results.append(error)
    return results


def _reason(error: Exception, data: bytes) -> str:
    if isinstance(error, UnidentifiedImageError):
        got = f"a file that begins with {data[:8]!r}" if data else "an empty file"
        return f"expected JPEG, PNG, BMP, WebP, TIFF or PPM, got {got}"
    if isinstance(error, Image.DecompressionBombError):
        return f"expected at most {MOST_PIXELS:,} pixels, got more than {2 * (Image.MAX_IMAGE_PIXELS or 0):,}"
    return str(error) or type(error).__name__


def _refuse_large(height: int, width: int, side: int | None) -> None:
    if height * width > MOST_PIXELS:
        raise ValueError(f"expected at most {MOST_PIXELS:,} pixels, got {width} x {height}")
    if side is not None:
        tall, wide = _scaled(height, width, side)
        if tall * wide > MOST_PIXELS:
            raise ValueError(
                f"expected at most {MOST_PIXELS:,} pixels once the shorter side is {side}, got {wide} x {tall} from "
                f"{width} x {height}"
            )


def _scaled(height: int, width: int, side: int) -> tuple[int, int]:
    """Height and width once the shorter side is `side`."""
    scale = side / min(height, width)
    return max(side, round(height * scale)), max(side, round(width * scale))


def _rgb(image: Image.Image) -> np.ndarray:
    if image.mode.startswith("I;16"):
        grey = np.asarray(image).astype(np.uint32)
        # 65,535 is white: 257 = 65,535 / 255. Pillow's own conversion clips at 255 instead.
        return np.repeat(((grey + 128) // 257).astype(np.uint8)[:, :, None], 3, axis=2)
    if image.mode in ("I", "F"):
        raise ValueError(f"expected 8 or 16 bits per channel, got Pillow's mode {image.mode}, which has no fixed range")
    return np.asarray(image.convert("RGB"))


def _squared(pixels: np.ndarray, side: int) -> np.ndarray:
    """Scaled so that the shorter side is `side`, then the middle square."""
    height, width = pixels.shape[:2]
    tall, wide = _scaled(height, width, side)
    image = Image.fromarray(pixels).resize((wide, tall), Image.Resampling.BILINEAR)
    left, top = (wide - side) // 2, (tall - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))


def _serve() -> None:
    # Ctrl-C reaches the whole group of processes; this one ends with its parent.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            message: Message = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(answer(message), sys.stdout.buffer)
        sys.stdout.buffer.flush()


if __name__ == "__main__":
    _serve()

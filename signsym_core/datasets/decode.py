"""One image file as uint8 pixels; what is decided here decides a cached pixel, so a change raises cache.VERSION.

Colour as RGB: grey is repeated, a palette looked up, CMYK converted, transparency dropped, 16-bit grey scaled to 8.
An EXIF orientation is ignored, as torchvision's loaders and the published lists' users do: pixels are as they lie in
the file. A file that ends too early is broken, never filled up with grey.

Legend: pixels uint8 [height, width, 3].
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".pgm", ".tif", ".tiff"})


class BrokenImageError(ValueError):
    """A file that is there and cannot be decoded; the message names it and says why."""


def read(file: Path, side: int | None) -> np.ndarray:
    """The pixels of `file`: as they are, or where `side` is given its middle square, scaled to side x side.

    Raises BrokenImageError for a file that is no image or is damaged, and OSError for one that cannot be read at all.
    """
    try:
        with Image.open(file) as image:
            pixels = _rgb(image)
    except Exception as error:
        # What the operating system refuses has an errno; the image may well be whole.
        if isinstance(error, OSError) and error.errno is not None:
            raise
        reason = str(error).replace(f" {str(file)!r}", "")
        raise BrokenImageError(f"image {file} cannot be decoded: {reason}") from error
    return pixels if side is None or pixels.shape[:2] == (side, side) else _squared(pixels, side)


def extent(file: Path) -> tuple[int, int] | None:
    """Height and width in pixels from the header of `file`, or None where it is broken."""
    try:
        with Image.open(file) as image:
            return image.height, image.width
    except Exception as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        return None


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
    scale = side / min(height, width)
    scaled = (max(side, round(width * scale)), max(side, round(height * scale)))
    image = Image.fromarray(pixels).resize(scaled, Image.Resampling.BILINEAR)
    left, top = (scaled[0] - side) // 2, (scaled[1] - side) // 2
    return np.asarray(image.crop((left, top, left + side, top + side)))

"""Adversarial images of a cell, as the store keeps them: PNG bytes."""

from __future__ import annotations

import dataclasses
import io
from collections.abc import Sequence, Set

import numpy as np
from numpy.typing import NDArray
from PIL import Image

#: Factor by which a difference is multiplied to be visible.
GAIN = 5.0
#: Pixels of an image at most; larger ones do not come from a sweep.
LARGEST = 4096 * 4096
#: Between the classes of an image that has several.
SEPARATOR = ", "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Example:
    """A clean image and its adversarial image."""

    cell: str
    image: int
    label: str
    predicted: str
    clean: bytes
    adversarial: bytes
    #: The name of its store, where several are shown together.
    store: str = ""


def classes_of(label: str, joined: Set[str]) -> list[str]:
    """The classes of an image from its label; `joined` are the names with a separator in them, as "tench, Tinca tinca".

    The longest name that fits is taken.
    """
    classes, pieces = [], label.split(SEPARATOR) if label else []
    while pieces:
        ends = range(len(pieces), 1, -1) if joined else ()
        end = next((end for end in ends if SEPARATOR.join(pieces[:end]) in joined), 1)
        classes.append(SEPARATOR.join(pieces[:end]))
        pieces = pieces[end:]
    return classes


def picture(examples: Sequence[Example], image: int, kind: str) -> bytes | None:
    """A PNG of an image: "clean", "adversarial", or "difference" times GAIN around grey. None if there is none.

    The bytes are decoded and encoded again: what a store holds under this name need not be an image.
    """
    example = next((one for one in examples if one.image == image), None)
    if example is None or kind not in ("clean", "adversarial", "difference"):
        return None
    try:
        clean, adversarial = _pixels(example.clean), _pixels(example.adversarial)
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError):
        return None
    if kind == "difference":
        if clean.shape != adversarial.shape:
            return None
        changed = 127.5 + GAIN * (adversarial.astype(np.float32) - clean.astype(np.float32))
        return _png(changed.clip(0, 255).round().astype(np.uint8))
    return _png(clean if kind == "clean" else adversarial)


def _pixels(data: bytes) -> NDArray[np.uint8]:
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        if image.width * image.height > LARGEST:
            raise ValueError(f"{image.width} × {image.height} pixels")
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()

"""The cache's record of each image: a mark of 28 bytes with a checksum of itself."""

from __future__ import annotations

import zlib
from collections.abc import Sequence

import numpy as np
from torch import Tensor

from signsym_core.datasets.decode import DIGEST

MISSING, READY, BROKEN = 0, 1, 2

#: state; CRC-32 of the pixels; the first bytes of the SHA-256 of their file; CRC-32 of all this, with the image's
#: position as its initial value.
MARK = np.dtype([("state", "<u4"), ("pixels", "<u4"), ("file", "u1", DIGEST), ("check", "<u4")])
_CHECKED = MARK.itemsize - 4


def mark(position: int, state: int, digest: bytes, pixels: bytes) -> bytes:
    """The mark of the image at `position`; `pixels` are empty where it is broken."""
    one = np.zeros(1, dtype=MARK)
    one["state"], one["pixels"], one["file"] = state, zlib.crc32(pixels), np.frombuffer(digest, dtype=np.uint8)
    one["check"] = zlib.crc32(one.tobytes()[:_CHECKED], position)
    return one.tobytes()


def believed(content: bytes) -> tuple[np.ndarray, int]:
    """The marks in `content`, damaged ones replaced by MISSING, and the number of damaged ones."""
    marks = np.frombuffer(content, dtype=MARK).copy()
    rows = marks.view(np.uint8).reshape(len(marks), MARK.itemsize)
    written = np.flatnonzero(rows.any(1))
    heads, crc32 = rows[:, :_CHECKED].tobytes(), zlib.crc32
    checks = [crc32(heads[position * _CHECKED : (position + 1) * _CHECKED], position) for position in written.tolist()]
    states = marks["state"][written]
    damaged = written[
        (marks["check"][written] != np.array(checks, dtype=np.uint32)) | (states < READY) | (states > BROKEN)
    ]
    marks[damaged] = np.zeros(1, dtype=MARK)
    return marks, len(damaged)


def differing(images: Tensor, checks: Sequence[int]) -> list[int]:
    """The positions in `images`, uint8 on the CPU, whose pixels do not have the CRC-32 of `checks`."""
    rows = images.reshape(len(images), -1).numpy()
    crc32 = zlib.crc32
    return [index for index, (row, check) in enumerate(zip(rows, checks, strict=True)) if crc32(row) != check]

"""The file of a cache that holds its pixels: as they are, or each image losslessly compressed.

`pixels`: uint8 [images, 3, height, width].

`packed`: for each image a slot of 4 bytes and its pixels, rounded up to whole pages: the length of what follows
(little-endian), then a lossless WebP stream, or the pixels as they are where a stream is no smaller. What an image
leaves of its slot is never written: a hole, which takes no room on the disk. So each image has its place in both files,
whoever writes beside it at the same time, and both have the length that uncompressed pixels need.
"""

from __future__ import annotations

import dataclasses
import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from signsym_core.datasets.decoders import cores

PLAIN, PACKED = "pixels", "packed"
#: Bytes of a length, and of a page: a smaller hole is none.
HEAD, PAGE = 4, 4096
#: Most pixels of a side that a WebP stream can hold.
LONGEST = 2**14 - 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pixels:
    """The pixels of `count` images of `height` x `width` pixels in the cache `folder`."""

    folder: Path
    count: int
    height: int
    width: int
    compressed: bool

    @property
    def file(self) -> Path:
        return self.folder / (PACKED if self.compressed else PLAIN)

    @property
    def shape(self) -> tuple[int, int, int]:
        return 3, self.height, self.width

    @property
    def bytes_per_image(self) -> int:
        """Bytes of an image's pixels."""
        return 3 * self.height * self.width

    @property
    def slot(self) -> int:
        """Bytes of an image's place in the file."""
        size = self.bytes_per_image
        return -(-(HEAD + size) // PAGE) * PAGE if self.compressed else size

    @property
    def room(self) -> int:
        """Bytes that the file takes on the disk; its length, which holes count in, may be more."""
        return self.file.stat().st_blocks * 512

    def stored(self, pixels: bytes) -> bytes:
        """What stands at the beginning of the slot of an image with the pixels `pixels`, [3, height, width]."""
        if not self.compressed:
            return pixels
        # At a tie the pixels: what has their length is read as them.
        content = min(pixels, packed(pixels, self.shape), key=len)
        return len(content).to_bytes(HEAD, "little") + content

    def mapped(self) -> MappedPixels:
        """The file to read from: what others write is seen, memory is shared with them."""
        return MappedPixels(self)


class MappedPixels:
    """The images of a cache's file, mapped into memory."""

    def __init__(self, pixels: Pixels) -> None:
        self.pixels = pixels
        # A private mapping of a file that is only read: torch warns about numpy's read-only maps.
        size = pixels.count * pixels.slot
        flat = torch.from_file(str(pixels.file), shared=False, size=size, dtype=torch.uint8)
        self._slots = flat.view(pixels.count, pixels.slot)

    def read(self, rows: Tensor) -> Tensor:
        """uint8 [n, 3, height, width]: the images at the positions `rows`; zeros for one whose stream is damaged."""
        shape = (len(rows), *self.pixels.shape)
        if not self.pixels.compressed:
            return self._slots.index_select(0, rows).view(shape)
        images, slots = np.zeros(shape, dtype=np.uint8), self._slots.numpy()

        def unpack(at: int, row: int) -> None:
            pixels = unpacked(slots[row], self.pixels.shape)
            if pixels is not None:
                images[at] = pixels

        # libwebp works outside Python's lock, so that threads are enough.
        threads = min(cores(), len(rows))
        if threads > 1:
            with ThreadPoolExecutor(threads) as pool:
                list(pool.map(unpack, range(len(rows)), rows.tolist()))
        else:
            for at, row in enumerate(rows.tolist()):
                unpack(at, row)
        return torch.from_numpy(images)


def packed(pixels: bytes, shape: tuple[int, int, int]) -> bytes:
    """The pixels `pixels`, [3, height, width], as a lossless WebP stream."""
    colours = np.frombuffer(pixels, dtype=np.uint8).reshape(shape).transpose(1, 2, 0)
    out = io.BytesIO()
    # The least effort: more makes streams a tenth smaller in three to twenty times as long.
    Image.fromarray(np.ascontiguousarray(colours)).save(out, "WEBP", lossless=True, method=0, quality=0)
    return out.getvalue()


def unpacked(slot: np.ndarray, shape: tuple[int, int, int]) -> np.ndarray | None:
    """The pixels [3, height, width] in a slot, or None where it is damaged."""
    length = int.from_bytes(slot[:HEAD].tobytes(), "little")
    content = slot[HEAD : HEAD + length].tobytes()
    size = shape[0] * shape[1] * shape[2]
    if length >= size:
        return np.frombuffer(content, dtype=np.uint8).reshape(shape) if length == size else None
    try:
        with Image.open(io.BytesIO(content), formats=("WEBP",)) as image:
            # Its header is checked before anything is decoded.
            fits = image.mode == "RGB" and image.size == shape[:0:-1]
            return np.asarray(image).transpose(2, 0, 1) if fits else None
    except Exception:
        # Whatever a damaged stream raises in libwebp or Pillow.
        return None

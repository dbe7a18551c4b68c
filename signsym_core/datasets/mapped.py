"""Memory-mapped images, which behave like a uint8 tensor when they are indexed."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from signsym_core.datasets.pixels import MappedPixels

#: From rows and the images read there to whether they are intact; it repairs damaged ones, which are then read again.
Check = Callable[[Tensor, Tensor], bool]


class Mapped:
    """Images uint8 [n, channels, height, width] on the CPU, read from a cache file when they are indexed.

    `rows` are the positions of the images in the file. Indexing by a position, a slice, positions or a mask along the
    first axis copies those images into memory, decompressed; nothing else is held in memory, and processes on one
    machine share the operating system's page cache. `check` is called with every image that is read.
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, pool: MappedPixels, rows: Tensor, check: Check) -> None:
        self._pool, self.rows, self._check = pool, rows, check

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self._pool.pixels.shape))

    @property
    def nbytes(self) -> int:
        return len(self.rows) * self._pool.pixels.bytes_per_image

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        if not isinstance(index, Tensor | slice | int):
            raise TypeError(
                f"mapped images are indexed by image alone (a position, slice, positions or mask), got {index}"
            )
        rows = self.rows[index.cpu() if isinstance(index, Tensor) else index]
        flat = rows.reshape(-1)
        images = self._pool.read(flat)
        while not self._check(flat, images):
            images = self._pool.read(flat)
        return images.view(*rows.shape, *images.shape[1:])

    def take(self, positions: Tensor) -> Mapped:
        """The images at `positions`, in that order, still in their file."""
        return Mapped(self._pool, self.rows[positions.cpu()], self._check)

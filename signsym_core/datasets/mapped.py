"""Memory-mapped images, which behave like a uint8 tensor when they are indexed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

#: From rows and the images read there to whether they are intact; it repairs damaged ones, which are then read again.
Check = Callable[[Tensor, Tensor], bool]


class Mapped:
    """Images uint8 [n, channels, height, width] on the CPU, read from a cache file when they are indexed.

    `rows` are the positions of the images in the file. Indexing by a position, a slice, positions or a mask along the
    first axis copies those images into memory; nothing else is held in memory, and processes on one machine share the
    operating system's page cache. `check` is called with every image that is read.
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, file: Path, count: int, shape: tuple[int, int, int], rows: Tensor, check: Check) -> None:
        # A private mapping of a file that is only read: torch warns about numpy's read-only maps.
        size = count * shape[0] * shape[1] * shape[2]
        self._pool = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).view(count, *shape)
        self.rows, self._check = rows, check

    @property
    def shape(self) -> torch.Size:
        return torch.Size((len(self.rows), *self._pool.shape[1:]))

    @property
    def nbytes(self) -> int:
        return len(self.rows) * self._pool[0].numel()

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: Tensor | slice | int) -> Tensor:
        if not isinstance(index, Tensor | slice | int):
            raise TypeError(
                f"mapped images are indexed by image alone (a position, slice, positions or mask), got {index}"
            )
        rows = self.rows[index.cpu() if isinstance(index, Tensor) else index]
        flat = rows.reshape(-1)
        images = self._pool.index_select(0, flat)
        while not self._check(flat, images):
            images = self._pool.index_select(0, flat)
        return images.view(*rows.shape, *images.shape[1:])

    def take(self, positions: Tensor) -> Mapped:
        """The images at `positions`, in that order, still in their file."""
        other = object.__new__(Mapped)
        other._pool, other.rows, other._check = self._pool, self.rows[positions.cpu()], self._check
        return other

"""Images that stay in a file: rows of a memory map that behave like a uint8 tensor when they are indexed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

#: Given rows and what was read there: whether it is what belongs there. Else it has seen to that, and reads again.
Check = Callable[[Tensor, Tensor], bool]


class Mapped:
    """Images uint8 [n, channels, height, width] on the CPU, read from a cache file when they are asked for.

    `rows` says where in the file each image lies. Indexing by a position, a slice, positions or a mask along the
    first axis copies those images into memory; nothing else is kept there, and processes on one machine share the
    pages that the operating system keeps. `check` sees every image that is read.
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, file: Path, count: int, shape: tuple[int, int, int], rows: Tensor, check: Check) -> None:
        # A private mapping of a file that is only read; unlike numpy's read-only map it gives a proper tensor.
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

    def __getitem__(self, at: Tensor | slice | int) -> Tensor:
        if not isinstance(at, Tensor | slice | int):
            raise TypeError(
                f"mapped images are indexed by image alone (a position, slice, positions or mask), got {at}"
            )
        rows = self.rows[at.cpu() if isinstance(at, Tensor) else at]
        flat = rows.reshape(-1)
        images = self._pool.index_select(0, flat)
        while not self._check(flat, images):
            images = self._pool.index_select(0, flat)
        return images.view(*rows.shape, *images.shape[1:])

    def part(self, at: Tensor) -> Mapped:
        """The images at the positions `at`, in that order, still in their file."""
        other = object.__new__(Mapped)
        other._pool, other.rows, other._check = self._pool, self.rows[at.cpu()], self._check
        return other

"""Images that stay in a file: rows of a memory map that behave like a uint8 tensor when they are indexed."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor


class Mapped:
    """Images uint8 [n, channels, height, width] on the CPU, read from a cache file when they are asked for.

    `rows` says where in the file each image lies. Indexing by a position, a slice, positions or a mask along the
    first axis copies those images into memory; nothing else is kept there, and processes on one machine share the
    pages that the operating system keeps.
    """

    dtype = torch.uint8
    device = torch.device("cpu")

    def __init__(self, file: Path, count: int, shape: tuple[int, int, int], rows: Tensor) -> None:
        # A private mapping of a file that is only read; unlike numpy's read-only map it gives a proper tensor.
        size = count * shape[0] * shape[1] * shape[2]
        self._pool = torch.from_file(str(file), shared=False, size=size, dtype=torch.uint8).view(count, *shape)
        self.rows = rows

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
        return self._pool.index_select(0, rows) if rows.dim() == 1 else self._pool[rows].clone()

    def part(self, at: Tensor) -> Mapped:
        """The images at the positions `at`, in that order, still in their file."""
        other = object.__new__(Mapped)
        other._pool, other.rows = self._pool, self.rows[at.cpu()]
        return other

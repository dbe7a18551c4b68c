"""The moves of Square: what an image is changed to, from uniform numbers of its stream.

Legend: m images [m, c, height, width] in [0, 1], c channels; ν the change so far; numbers drawn in [0, 1).
"""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import Tensor

from signsym_core.attacks.ball import Norm, steepest

_TINY = 1e-12


class Moves(ABC):
    """The moves in one norm within the radius `epsilon`, for images of the shape of `images`."""

    #: Shape of the numbers that an image's start is made from.
    first: tuple[int, ...]
    #: Count of those that a move is made from.
    numbers: int

    def __init__(self, images: Tensor, epsilon: float) -> None:
        self.channels, self.height, self.width = images.shape[1:]
        self.epsilon = epsilon

    @abstractmethod
    def start(self, clean: Tensor, drawn: Tensor) -> Tensor:
        """The first proposals, from the numbers `drawn` [m, *first]; the caller clips them to [0, 1]."""

    @abstractmethod
    def moved(self, clean: Tensor, current: Tensor, drawn: Tensor, side: int) -> Tensor:
        """Proposals from the images so far and `drawn` [m, numbers], with squares of `side`; clipped by the caller."""

    def _within(self, drawn: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
        """Where a square of this side is that `drawn` [m, 2] puts somewhere: each pixel's row and column in it, int64
        [m, height] and [m, width], and whether it is inside, bool [m, 1, height, width].
        """
        top = (drawn[:, :1] * (self.height - side + 1)).long()
        left = (drawn[:, 1:] * (self.width - side + 1)).long()
        rows = torch.arange(self.height, device=drawn.device) - top
        columns = torch.arange(self.width, device=drawn.device) - left
        inside = ((rows >= 0) & (rows < side))[:, :, None] & ((columns >= 0) & (columns < side))[:, None, :]
        return rows, columns, inside[:, None]


class Corners(Moves):
    """In L∞: stripes one pixel wide, then squares, of x ± ε, one sign for each channel."""

    def __init__(self, images: Tensor, epsilon: float) -> None:
        super().__init__(images, epsilon)
        self.first, self.numbers = (self.channels, 1, self.width), self.channels + 2

    def start(self, clean: Tensor, drawn: Tensor) -> Tensor:
        return clean + self.epsilon * _signs(drawn)

    def moved(self, clean: Tensor, current: Tensor, drawn: Tensor, side: int) -> Tensor:
        inside = self._within(drawn[:, -2:], side)[-1]
        return torch.where(inside, clean + self.epsilon * _signs(drawn[:, :-2])[..., None, None], current)


class Bumps(Moves):
    """In L2: a grid of tiles ±η of a fifth of the image's side, brought to the length ε; then moves of two windows.

    η is a bump beside its negative, of length 1 (`bump`, equation 2), or its transpose. In a channel i of the first
    window ν becomes ρ η + ν / |ν|, ρ = ±1, brought to the length √(|ν|² in both windows + (ε² - |ν|²) / c), and in the
    rest of the second window 0: length that clipping left unused, and that of the second window, moves into the first.
    The whole change is brought to the length ε again.
    """

    def __init__(self, images: Tensor, epsilon: float) -> None:
        super().__init__(images, epsilon)
        self.tile = max(min(self.height, self.width) // 5, 1)
        self.down, self.across = self.height // self.tile, self.width // self.tile
        self.first, self.numbers = (self.down, self.across, self.channels + 1), self.channels + 5
        #: η by its side.
        self._etas: dict[int, Tensor] = {}

    def start(self, clean: Tensor, drawn: Tensor) -> Tensor:
        eta, tile = self._eta(self.tile, clean), self.tile
        turned = (drawn[..., -1] < 0.5)[..., None, None]
        tiles = torch.where(turned, eta.t(), eta)[:, :, :, None] * _signs(drawn[..., :-1])[..., None, None]
        # [m, down, across, c, tile, tile] to [m, c, down, tile, across, tile].
        grid = tiles.permute(0, 3, 1, 4, 2, 5).reshape(len(clean), self.channels, self.down * tile, self.across * tile)
        change = torch.zeros_like(clean)
        top, left = (self.height - grid.shape[2]) // 2, (self.width - grid.shape[3]) // 2
        change[:, :, top : top + grid.shape[2], left : left + grid.shape[3]] = grid
        return clean + self.epsilon * steepest(change, "l2")

    def moved(self, clean: Tensor, current: Tensor, drawn: Tensor, side: int) -> Tensor:
        signs, turned = _signs(drawn[:, :-5])[..., None, None], drawn[:, -5] < 0.5
        rows, columns, window = self._within(drawn[:, -4:-2], side)
        other = self._within(drawn[:, -2:], side)[-1]
        change = current - clean
        energy = change.square()
        unused = (self.epsilon**2 - energy.sum(dim=(1, 2, 3), keepdim=True)).clamp(min=0)
        available = (_summed(energy * (window | other)) + unused / self.channels).sqrt()
        down, across = rows.clamp(0, side - 1)[:, :, None], columns.clamp(0, side - 1)[:, None, :]
        eta = self._eta(side, clean)
        placed = torch.where(turned[:, None, None], eta[across, down], eta[down, across])[:, None]
        inside = change * window
        new = signs * placed * window + inside / (_summed(energy * window).sqrt() + _TINY)
        new = new / (_summed(new.square()).sqrt() + _TINY) * available
        return clean + self.epsilon * steepest(torch.where(window, new, change * ~other), "l2")

    def _eta(self, side: int, like: Tensor) -> Tensor:
        if side not in self._etas:
            half = side // 2
            halves = torch.cat([bump(half, side, like), -bump(side - half, side, like)])
            self._etas[side] = halves / halves.norm()
        return self._etas[side]


def bump(height: int, width: int, like: Tensor) -> Tensor:
    """[height, width] of length 1: Σ 1 / k² over k from d + 1 to n + 1, with d the distance from the middle in rows or
    columns, whichever is larger, and n its largest value: equation 2. Of the type and device of `like`.
    """
    rows, columns = (torch.arange(length, device=like.device) - length // 2 for length in (height, width))
    distance = torch.maximum(rows.abs()[:, None], columns.abs()[None])
    shares = torch.arange(1, max(height, width) // 2 + 2, device=like.device, dtype=like.dtype) ** -2
    values = shares.flip(0).cumsum(0).flip(0)[distance]
    length: Tensor = torch.linalg.vector_norm(values)
    return values / length


def moves(norm: Norm, images: Tensor, epsilon: float) -> Moves:
    """The moves of a norm for images of this shape."""
    return (Corners if norm == "linf" else Bumps)(images, epsilon)


def _summed(squares: Tensor) -> Tensor:
    """[m, c, 1, 1]: the sum of each channel."""
    return squares.sum(dim=(2, 3), keepdim=True)


def _signs(uniform: Tensor) -> Tensor:
    return torch.where(uniform < 0.5, -1.0, 1.0).to(uniform.dtype)

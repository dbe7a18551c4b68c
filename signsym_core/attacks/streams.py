"""A random stream for each image, so that what is drawn for one does not depend on which others are there."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Streams:
    """One generator per image of a block, each from its own seed, on `like`'s device and of its type.

    A draw for some of the images moves on their streams alone. Draws on different kinds of devices differ.
    """

    def __init__(self, seeds: Sequence[int], like: Tensor) -> None:
        self.generators = [torch.Generator(device=like.device).manual_seed(seed) for seed in seeds]
        self.dtype, self.device = like.dtype, like.device

    def uniform(self, places: Tensor, *shape: int) -> Tensor:
        """U(0, 1) of [len(places), *shape], from the streams of the images at `places` (whole numbers, any device)."""
        result = torch.empty(len(places), *shape, dtype=self.dtype, device=self.device)
        for row, place in zip(result, places.tolist(), strict=True):
            row.uniform_(generator=self.generators[place])
        return result

    def normal(self, places: Tensor, *shape: int) -> Tensor:
        """N(0, 1) of [len(places), *shape], from the streams of the images at `places`."""
        result = torch.empty(len(places), *shape, dtype=self.dtype, device=self.device)
        for row, place in zip(result, places.tolist(), strict=True):
            row.normal_(generator=self.generators[place])
        return result

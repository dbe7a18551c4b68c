"""A random stream for each image, so that an image's draws do not depend on the other images."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from signsym_core.datasets.batches import brought


class Streams:
    """One generator per image of a block, each with a separate seed, on `device` or that of `like`, and of its type.

    A draw for some of the images advances only their streams. Draws on different kinds of devices differ.
    """

    def __init__(self, seeds: Sequence[int], like: Tensor, device: torch.device | None = None) -> None:
        self.drawn_on, self.dtype, self.device = device or like.device, like.dtype, like.device
        self.generators = [torch.Generator(device=self.drawn_on).manual_seed(seed) for seed in seeds]

    def uniform(self, places: Tensor | range, *shape: int) -> Tensor:
        """U(0, 1) of [len(places), *shape], from the streams of the images at `places` (whole numbers, any device).

        On a CPU one draw of [k, *shape] gives the same numbers as k successive draws of `shape`.
        """
        result = torch.empty(len(places), *shape, dtype=self.dtype, device=self.drawn_on)
        for row, place in zip(result, _listed(places), strict=True):
            row.uniform_(generator=self.generators[place])
        return brought(result, self.device)

    def normal(self, places: Tensor, *shape: int) -> Tensor:
        """N(0, 1) of [len(places), *shape], from the streams of the images at `places`."""
        result = torch.empty(len(places), *shape, dtype=self.dtype, device=self.drawn_on)
        for row, place in zip(result, _listed(places), strict=True):
            row.normal_(generator=self.generators[place])
        return brought(result, self.device)


def _listed(places: Tensor | range) -> list[int]:
    return list(places) if isinstance(places, range) else places.tolist()

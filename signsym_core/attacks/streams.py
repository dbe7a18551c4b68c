"""A random stream for each image, so that an image's draws do not depend on the other images.

Legend: γ = 0x9E3779B97F4A7C15; all numbers of 64 bits, modulo 2⁶⁴; ≫ shifts zeros in.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from signsym_core.datasets.batches import brought

#: γ and the two factors of `_words`, as signed numbers.
_GAMMA, _FIRST, _SECOND = (
    constant - 2**64 for constant in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)
)


class Streams:
    """One generator per image of a block, each with a separate seed, on `device` or that of `like`, and of its type.

    A draw for some of the images advances only their streams. Draws on different kinds of devices differ.
    """

    def __init__(self, seeds: Sequence[int], like: Tensor, device: torch.device | None = None) -> None:
        self.drawn_on, self.dtype, self.device = device or like.device, like.dtype, like.device
        self.generators = [torch.Generator(device=self.drawn_on).manual_seed(seed) for seed in seeds]

    def uniform(self, places: Tensor | Sequence[int], *shape: int) -> Tensor:
        """U(0, 1) of [len(places), *shape], from the streams of the images at `places` (whole numbers, any device).

        On a CPU one draw of [k, *shape] gives the same numbers as k successive draws of `shape`.
        """
        result = torch.empty(len(places), *shape, dtype=self.dtype, device=self.drawn_on)
        for row, place in zip(result, _listed(places), strict=True):
            row.uniform_(generator=self.generators[place])
        return brought(result, self.device)

    def normal(self, places: Tensor | Sequence[int], *shape: int) -> Tensor:
        """N(0, 1) of [len(places), *shape], from the streams of the images at `places`."""
        result = torch.empty(len(places), *shape, dtype=self.dtype, device=self.drawn_on)
        for row, place in zip(result, _listed(places), strict=True):
            row.normal_(generator=self.generators[place])
        return brought(result, self.device)


class Counted:
    """Draws of all images at once, each number computed from its image's seed, the draw and its place in it alone.

    Word k of an image with the seed s is m(s + (k + 1) γ) of SplitMix64 (Steele, Lea, Flood 2014, Fast splittable
    pseudorandom number generators), figure 14: m(z): z ← (z ⊕ z ≫ 30) · 0xBF58476D1CE4E5B9, z ← (z ⊕ z ≫ 27) ·
    0x94D049BB133111EB, z ⊕ z ≫ 31. Draw d of c numbers has the words from d ⌈c / 2⌉ on. All devices have the same
    words, and numbers that are equal up to rounding; nothing waits for the device.
    """

    def __init__(self, seeds: Sequence[int], like: Tensor) -> None:
        self.dtype, self.device = like.dtype, like.device
        self._seeds = brought(torch.tensor(seeds, dtype=torch.int64), self.device)

    def normal(self, places: Tensor, draw: int, count: int) -> Tensor:
        """N(0, 1) of [len(places), count]: draw number `draw`, from 0, of the images at `places` (int64 [m]).

        A word w gives two numbers by the transform of Box and Muller, √(-2 ln u) cos 2πv, and sin at the same place in
        the second half, with u in (0, 1] and v from its 24 upper and its next 24 bits, in single precision.
        """
        half = -(-count // 2)
        words = self._words(places, draw * half, half)
        # As signed numbers of 24 bits, from -1/2 to 1/2.
        upper, lower = ((bits >> 40).float().mul_(2.0**-24) for bits in (words, words << 24))
        radius = upper.neg_().add_(0.5).log_().mul_(-2).sqrt_()
        angle = lower.mul_(2 * math.pi)
        return torch.cat([radius * angle.cos(), radius * angle.sin()], dim=1)[:, :count].to(self.dtype)

    def in_ball(self, places: Tensor, draw: int, shape: Sequence[int]) -> Tensor:
        """Uniform in the Euclidean ball of radius 1, [len(places), *shape]: draw number `draw`.

        The first d entries of a point on the sphere in d + 2 dimensions are (Voelker, Gosmann, Stewart 2017,
        Efficiently sampling vectors and coordinates from the n-sphere and n-ball).
        """
        pixels = math.prod(shape)
        numbers = self.normal(places, draw, pixels + 2)
        lengths: Tensor = torch.linalg.vector_norm(numbers, dim=1, keepdim=True)
        return (numbers / lengths)[:, :pixels].reshape(-1, *shape)

    def _words(self, places: Tensor, first: int, count: int) -> Tensor:
        """int64 [len(places), count]: the words from number `first` on."""
        steps = torch.arange(first + 1, first + count + 1, device=self.device).mul_(_GAMMA)
        z = self._seeds[places, None] + steps
        z.bitwise_xor_(_shifted(z, 30)).mul_(_FIRST)
        z.bitwise_xor_(_shifted(z, 27)).mul_(_SECOND)
        return z.bitwise_xor_(_shifted(z, 31))


def _shifted(z: Tensor, bits: int) -> Tensor:
    # The shift of signed numbers repeats the sign.
    return (z >> bits).bitwise_and_((1 << (64 - bits)) - 1)


def _listed(places: Tensor | Sequence[int]) -> Sequence[int]:
    return places.tolist() if isinstance(places, Tensor) else places

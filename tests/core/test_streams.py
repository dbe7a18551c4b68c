"""The counted draws of images: SplitMix64 and the transform of Box and Muller written out, and independent images."""

from __future__ import annotations

import math

import pytest
import torch

from signsym_core.attacks.streams import Counted

#: The first numbers that SplitMix64 gives for the seed 1234567, as published by others.
PUBLISHED = (6457827717110365317, 3203168211198807973, 9817491932198370423, 4593380528125082431, 16408922859458223821)
EVERYONE = torch.arange(3)


def split_mix(seed, count):
    """The algorithm as it is printed, in whole numbers without end."""
    numbers = []
    for _ in range(count):
        seed = (seed + 0x9E3779B97F4A7C15) % 2**64
        z = seed
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
        numbers.append(z ^ (z >> 31))
    return numbers


def test_the_words_are_those_of_split_mix():
    assert split_mix(1234567, 5) == list(PUBLISHED)
    seeds = [1234567, 0, 2**63 - 1]
    words = Counted(seeds, torch.empty(0))._words(EVERYONE, 0, 40)
    for seed, row in zip(seeds, words.tolist(), strict=True):
        assert [word % 2**64 for word in row] == split_mix(seed, 40)


@pytest.mark.parametrize("count", [1, 6, 7])
def test_normal_numbers_are_the_words_by_the_transform_of_box_and_muller(count):
    seeds, half = [3, 99, 2**62], -(-count // 2)
    draws = Counted(seeds, torch.empty(0, dtype=torch.float64))
    for draw in (0, 5):
        found = draws.normal(EVERYONE, draw, count)
        for seed, row in zip(seeds, found.tolist(), strict=True):
            expected = [0.0] * (2 * half)
            for number, word in enumerate(split_mix(seed, (draw + 1) * half)[draw * half :]):
                # 24 bits each, read as signed numbers.
                upper, lower = word >> 40, word >> 16 & 0xFFFFFF
                u, v = ((bits - 2**24 if bits >= 2**23 else bits) / 2**24 for bits in (upper, lower))
                radius = math.sqrt(-2 * math.log(0.5 - u))
                expected[number], expected[number + half] = (
                    radius * part(2 * math.pi * v) for part in (math.cos, math.sin)
                )
            assert row == pytest.approx(expected[:count], abs=2e-6)


def test_an_image_gets_its_numbers_whatever_is_drawn_for_others():
    draws, other = Counted([5, 6, 7], torch.empty(0)), Counted([9, 7], torch.empty(0))
    last = draws.normal(EVERYONE, 4, 9)[2]
    assert torch.equal(draws.normal(torch.tensor([2, 0]), 4, 9)[0], last)
    assert torch.equal(other.normal(torch.tensor([1]), 4, 9)[0], last)
    assert not torch.equal(draws.normal(EVERYONE, 5, 9)[2], last)


def test_the_numbers_are_normal():
    numbers = Counted(range(20), torch.empty(0)).normal(torch.arange(20), 3, 20_000)
    assert numbers.isfinite().all()
    n = numbers.numel()
    # Each within five standard errors: mean, variance, third and fourth moment, and the correlation of the two halves.
    pairs = numbers[:, :10_000] * numbers[:, 10_000:]
    for moment, expected, variance in (
        (numbers, 0, 1),
        (numbers.square(), 1, 2),
        (numbers**3, 0, 15),
        (numbers**4, 3, 96),
        (pairs, 0, 2),
    ):
        assert abs(float(moment.double().mean()) - expected) < 5 * math.sqrt(variance / n)
    # Images, and draws, are independent of each other.
    between = numbers @ numbers.t() / 20_000
    assert (between - torch.eye(20)).abs().max() < 5.5 * math.sqrt(2 / 20_000)
    later = Counted(range(20), torch.empty(0)).normal(torch.arange(20), 4, 20_000)
    assert (numbers * later).mean(dim=1).abs().max() < 5 * math.sqrt(1 / 20_000)

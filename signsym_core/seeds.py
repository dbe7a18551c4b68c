"""Named random generators: each use of randomness has a separate stream, never the global generator."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import numpy as np
import torch


def derive(seed: int, *names: object) -> int:
    """A seed in [0, 2^63) that depends on `seed` and on every name: `derive(0, "order", 3)`."""
    text = "/".join(str(name) for name in (seed, *names))
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def generator(seed: int, *names: object, device: torch.device | str = "cpu") -> torch.Generator:
    """A fresh generator on `device` for the stream `names` of `seed`."""
    return torch.Generator(device=device).manual_seed(derive(seed, *names))


@contextlib.contextmanager
def seeded_globally(seed: int, *names: object, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed torch's global generators inside the block and restore them after it.

    For code that takes no generator: torchvision's initialisation, and dropout.
    """
    device = torch.device(device)
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(derive(seed, *names))
        yield


@contextlib.contextmanager
def libraries_seeded(seed: int, device: torch.device | str = "cpu") -> Iterator[None]:
    """Seed the global generators of torch and numpy with `seed` inside the block and restore them after it.

    For libraries that draw from them: what such a library does here it does after `torch.manual_seed(seed)` and
    `numpy.random.seed(seed % 2**32)` too.
    """
    device = torch.device(device)
    before = np.random.get_state()
    try:
        with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
            torch.manual_seed(seed)
            np.random.seed(seed % 2**32)
            yield
    finally:
        np.random.set_state(before)

"""Shuffled training batches from the cache of decoded images, over torchvision's ImageFolder with a DataLoader.

A folder of 20,000 JPEG files is made, loaded once (which fills the cache), and then read epoch after epoch as a
fine-tune reads it: batches in random order, mirrored, as float pixels. Both ways run on the same two cores, one after
the other in each round; the peer gets one worker process per core, and keeps them between epochs.
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader
from torchvision import datasets, transforms

import signsym_core as ss
from benchmarks.measure import in_turn
from signsym_core.datasets import DataSource, Split, augmented

BAR = 20_000


def main(images: int = 20_000, side: int = 64, rounds: int = 3) -> None:
    """Print images per second of both ways for each batch size, for images in memory and in the cache's file."""
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        _make(root, images, side)
        source = ss.DATASETS.build("imagefolder", size=side)
        started = time.perf_counter()
        held = source.load(root).train
        seconds = time.perf_counter() - started
        print(f"first load, which decodes: {(images + 2) / seconds:9.0f} images/s on {cores} cores", flush=True)
        os.environ["SIGNSYM_RESIDENT_BYTES"] = "0"
        mapped = source.load(root).train
        for batch in (32, 64, 128, 256):
            peer = _peer(root, batch, cores)
            ways = {
                "memory": lambda batch=batch: _epoch(held, source, batch),
                "file": lambda batch=batch: _epoch(mapped, source, batch),
                "peer": peer,
            }
            times = in_turn(ways, rounds=rounds, warm_up=1)
            rate = {way: images / median(taken) for way, taken in times.items()}
            print(
                f"batches of {batch:>3} at {side} px: {rate['memory']:7.0f} images/s from memory, {rate['file']:7.0f} "
                f"from the file; ImageFolder + DataLoader {rate['peer']:7.0f} (file / peer "
                f"{rate['file'] / rate['peer']:.1f}, bar {BAR} images/s)",
                flush=True,
            )


def _epoch(split: Split, source: DataSource, batch: int) -> None:
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(0))
    chance = torch.Generator().manual_seed(1)
    for chosen in order.split(batch):
        augmented(split.take(chosen).images, source, chance)


def _peer(root: Path, batch: int, cores: int) -> Callable[[], None]:
    steps = transforms.Compose([transforms.RandomHorizontalFlip(), transforms.ToTensor()])
    loader = DataLoader(
        datasets.ImageFolder(str(root / "train"), steps),
        batch_size=batch,
        shuffle=True,
        num_workers=cores,
        persistent_workers=True,
    )

    def epoch() -> None:
        for _ in loader:
            pass

    return epoch


def _make(root: Path, images: int, side: int) -> None:
    """Smooth noise, which compresses about as photographs do."""
    chance = np.random.default_rng(0)
    for part, count in (("train", images), ("test", 2)):
        for at in range(count):
            folder = root / part / ("a", "b")[at % 2]
            folder.mkdir(parents=True, exist_ok=True)
            coarse = Image.fromarray(chance.integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8))
            coarse.resize((side, side), Image.Resampling.BICUBIC).save(folder / f"{at:06d}.jpg", quality=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=20_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    main(**vars(parser.parse_args()))

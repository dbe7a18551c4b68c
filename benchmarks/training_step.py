"""A training step under each rule over BP's: forward, backward and Adam, ResNet-18 at 64 px and AlexNet at 224 px."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torchvision import models

import signsym_core as ss
from benchmarks.measure import in_turn, line, ratio

BARS = {"usf": "at most 1.05", "frsf": "at most 1.05", "brsf": "at most 1.12"}


def main(device: str = "cpu", batch: int = 32) -> None:
    """Print a line for each network and rule."""
    for name, size in (("resnet18", 64), ("alexnet", 224)):
        images = torch.rand(batch, 3, size, size, device=device)
        labels = torch.randint(10, (batch,), device=device)
        ways = {rule: _step(name, rule, images, labels) for rule in ("bp", *BARS)}
        times = in_turn(ways, rounds=11)
        for rule, bar in BARS.items():
            what = f"training step, {name} {size} px, batch {batch}, {rule} / bp"
            line(what, median(times[rule]), median(times["bp"]), ratio(times, rule, "bp"), bar)


def _step(name: str, rule: str, images: torch.Tensor, labels: torch.Tensor) -> Callable[[], None]:
    model = ss.convert(getattr(models, name)(num_classes=10).to(images.device).train(), rule)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, weight_decay=5e-4, fused=True)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        F.cross_entropy(model(images), labels).backward()
        optimizer.step()
        if images.device.type == "cuda":
            torch.cuda.synchronize()

    return step


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    main(**vars(parser.parse_args()))

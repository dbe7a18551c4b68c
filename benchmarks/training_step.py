"""A training step under each rule over BP's: forward, backward and optimiser, ResNet-18 at 64 px, AlexNet at 224 px.

Rules whose B follows W are measured with Adam on both networks, learned ones with AdamW on ResNet-18.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median

import torch
import torch.nn.functional as F
from torchvision import models

import signsym_core as ss
from benchmarks.measure import in_turn, line, ratio
from signsym_core.rules.held import parameter_groups

BARS = {"usf": "at most 1.05", "frsf": "at most 1.05", "brsf": "at most 1.12", "dfa": "at most 1.10"}
LEARNED = {"kp": "at most 1.06", "lowrank": "at most 1.10", "wm": "at most 1.20"}


def main(device: str = "cpu", batch: int = 32, rules: str = "all") -> None:
    """Print a line for each network and rule; `rules`: all, follow or learned."""
    cases = [("resnet18", 64, BARS), ("resnet18", 64, LEARNED), ("alexnet", 224, BARS)]
    for name, size, bars in cases:
        if rules != "all" and bars is not {"follow": BARS, "learned": LEARNED}[rules]:
            continue
        images = torch.rand(batch, 3, size, size, device=device)
        labels = torch.randint(10, (batch,), device=device)
        ways = {rule: _step(name, rule, images, labels, bars is LEARNED) for rule in ("bp", *bars)}
        times = in_turn(ways, rounds=11)
        for rule, bar in bars.items():
            what = f"training step, {name} {size} px, batch {batch}, {rule} / bp"
            line(what, median(times[rule]), median(times["bp"]), ratio(times, rule, "bp"), bar)


def _step(name: str, rule: str, images: torch.Tensor, labels: torch.Tensor, learned: bool) -> Callable[[], None]:
    model = ss.convert(getattr(models, name)(num_classes=10).to(images.device).train(), rule)
    kind = torch.optim.AdamW if learned else torch.optim.Adam
    optimizer = kind(parameter_groups(model, list(model.parameters())), lr=1e-5, weight_decay=5e-4, fused=True)

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
    parser.add_argument("--rules", default="all", choices=["all", "follow", "learned"])
    main(**vars(parser.parse_args()))

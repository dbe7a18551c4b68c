"""A training step under each rule over BP's: forward, backward and optimiser, ResNet-18 at 64 px, AlexNet at 224 px.

Rules whose B follows W are measured with Adam on both networks, learned ones with AdamW on ResNet-18. With
`--rules alignment`: what the table of alignment adds to an epoch of 42 steps, ResNet-18 and the grids' small CNN.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from statistics import median

import torch
import torch.nn.functional as F
from torchvision import models

import signsym_core as ss
from benchmarks.measure import in_turn, line, ratio
from signsym_core.rules.held import parameter_groups
from signsym_core.training.alignment import epoch_alignment

BARS = {"usf": "at most 1.05", "frsf": "at most 1.05", "brsf": "at most 1.10", "dfa": "at most 1.10"}
#: Steps of an epoch over the digits.
STEPS = 42
LEARNED = {"kp": "at most 1.06", "lowrank": "at most 1.10", "wm": "at most 1.20"}


def main(device: str = "cpu", batch: int = 32, rules: str = "all") -> None:
    """Print a line for each network and rule; `rules`: all, follow, learned or alignment."""
    if rules in ("all", "alignment"):
        _alignment(device, batch)
    if rules == "alignment":
        return
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


def _alignment(device: str, batch: int) -> None:
    """Epochs of STEPS steps with the table of alignment over epochs without."""
    resnet = lambda: models.resnet18(num_classes=10)  # noqa: E731
    small = lambda: ss.BACKBONES.build("smallcnn", width=8).build(10, channels=1, size=16)  # noqa: E731
    objective = ss.TASKS.build("classification").objective(10, 0)
    for name, build, shape in (("resnet18 64 px", resnet, (3, 64, 64)), ("smallcnn 16 px", small, (1, 16, 16))):
        images, labels = torch.rand(batch, *shape, device=device), torch.randint(10, (batch,), device=device)
        for rule in ("bp", "usf", "brsf", "dfa"):
            model = ss.convert(build().to(device).train(), rule)
            optimizer = torch.optim.Adam(model.parameters(), lr=1e-5, fused=True)
            # Between the backward pass and the optimiser's step, as in a training.
            table = partial(epoch_alignment, model, objective, images, labels, STEPS * batch)
            ways = {
                "with": partial(_one_step, model, optimizer, images, labels, table),
                "without": partial(_one_step, model, optimizer, images, labels, None),
            }
            times = in_turn(ways, rounds=21)
            plain, added = STEPS * median(times["without"]), (ratio(times, "with", "without") - 1) / STEPS
            what = f"alignment, once in {STEPS} steps, {name}, batch {batch}, {rule}"
            line(what, plain * (1 + added), plain, 1 + added, "at most 1.01")


def _one_step(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    images: torch.Tensor,
    labels: torch.Tensor,
    between: Callable[[], object] | None,
) -> None:
    optimizer.zero_grad(set_to_none=True)
    F.cross_entropy(model(images), labels).backward()
    if between is not None:
        between()
    optimizer.step()
    if images.device.type == "cuda":
        torch.cuda.synchronize()


def _step(name: str, rule: str, images: torch.Tensor, labels: torch.Tensor, learned: bool) -> Callable[[], None]:
    model = ss.convert(getattr(models, name)(num_classes=10).to(images.device).train(), rule)
    kind = torch.optim.AdamW if learned else torch.optim.Adam
    optimizer = kind(parameter_groups(model, list(model.parameters())), lr=1e-5, weight_decay=5e-4, fused=True)
    return partial(_one_step, model, optimizer, images, labels, None)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rules", default="all", choices=["all", "follow", "learned", "alignment"])
    main(**vars(parser.parse_args()))

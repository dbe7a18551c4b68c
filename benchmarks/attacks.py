"""FGSM and PGD(5) over 11 epsilons against Foolbox on the same model: time, passes, and equal outcomes."""

from __future__ import annotations

import argparse
from statistics import median
from typing import Any

import foolbox
import torch
from torchvision import models

import signsym_core as ss
from benchmarks.measure import in_turn, line, ratio

EPSILONS = [0.0, 0.001, 0.002, 0.005, 0.01, 0.02, 0.03, 0.05, 0.1, 0.2, 0.5]


def main(device: str = "cpu", images: int = 32, side: int = 64) -> None:
    """Print a line for each attack and network."""
    torch.manual_seed(0)
    # On a GPU both compute in float32, with kernels that give the same numbers every time.
    cudnn: Any = torch.backends.cudnn
    cudnn.conv.fp32_precision = cudnn.rnn.fp32_precision = "ieee"
    cudnn.deterministic = True
    for name in ("resnet18", "alexnet"):
        model = getattr(models, name)(num_classes=10).to(device).eval()
        pixels = torch.rand(images, 3, side, side, device=device)
        labels = model(pixels).argmax(1)
        theirs = foolbox.PyTorchModel(model, bounds=(0, 1), device=device)
        clean, random = (foolbox.attacks.LinfPGD(steps=5, rel_stepsize=0.5, random_start=start) for start in (0, 1))
        for attack, peer, parameters, bar in (
            ("fgsm", foolbox.attacks.LinfFastGradientAttack(), {}, "at most 1 / 4 = 0.25"),
            ("pgd", clean, {"steps": 5, "random_start": False}, "at most 1 / 2 = 0.5"),
            ("pgd", random, {"steps": 5, "random_start": True}, "at most 1 / 2 = 0.5; the starts are others"),
        ):
            outcome = ss.attack(attack, model, pixels, labels, EPSILONS, **parameters)
            _, _, lost = peer(theirs, pixels, labels, epsilons=EPSILONS)
            differ = int((outcome.robust != ~lost.cpu()).sum())
            ways = {
                "ours": lambda a=attack, m=model, x=pixels, y=labels, p=parameters: ss.attack(
                    a, m, x, y, EPSILONS, **p
                ),
                "foolbox": lambda f=peer, m=theirs, x=pixels, y=labels: f(m, x, y, epsilons=EPSILONS)[2].cpu(),
            }
            times = in_turn(ways, rounds=5, warm_up=1)
            passes = f"{outcome.images_forward / images:.0f} forward + {outcome.images_backward / images:.0f} backward"
            what = f"{attack}, {name} {side} px, 11 epsilons, {passes}, {differ} of {outcome.robust.numel()} differ"
            line(what, median(times["ours"]), median(times["foolbox"]), ratio(times, "ours", "foolbox"), bar)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--images", type=int, default=32)
    parser.add_argument("--side", type=int, default=64)
    main(**vars(parser.parse_args()))

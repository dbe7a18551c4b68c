"""Loads what every job needs, in a worker that has no job yet; this module's import is half of it."""

from __future__ import annotations

import torch

from orchestrator.work import execute  # noqa: F401
from orchestrator.work.device import device
from signsym_core.vision import torchvision


def warm_up() -> None:
    """Load the kernels of a GPU's libraries: each kind at its first use."""
    if device().type != "cuda":
        return
    torchvision("models")
    images, weights = (torch.zeros(4, 3, 8, 8, device="cuda", requires_grad=True) for _ in range(2))
    outputs = torch.nn.functional.conv2d(images, weights)
    (outputs.flatten(1) @ outputs.flatten(1).t()).sum().backward()
    torch.cuda.synchronize()

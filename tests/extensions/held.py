"""A small network whose trainings and attacks wait while a gate is closed: see tests/gate.py."""

from __future__ import annotations

import dataclasses
import os
import socket
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import signsym_core as ss
from signsym_core.backbones.smallcnn import SmallCNN

#: The pass of a training that waits: in the third epoch of the tiny grid's fine-tunes, each of four steps and of two
#: passes that measure alignment, and beyond the end of its pre-training, which has nine.
PASS = 14


class Wait:
    """Waits before pass number `PASS` of a training, and before each pass of an attack that has a gradient."""

    def __init__(self) -> None:
        self.passes = 0

    def __call__(self, network: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        if network.training:
            self.passes += 1
            if self.passes == PASS:
                wait("training")
        elif torch.is_grad_enabled():
            wait("attack")


def wait(work: str) -> None:
    """Wait while the gate is closed for this kind of work on this host, and say so meanwhile."""
    if not (folder := os.environ.get("SIGNSYM_TEST_GATE")):
        return
    host = socket.gethostname()
    closed, waiting = Path(folder, f"{work}-closed-{host}"), Path(folder, f"{work}-waiting-{host}-{os.getpid()}")
    if closed.exists():
        waiting.touch()
        while closed.exists():
            time.sleep(0.02)
        waiting.unlink()


@ss.BACKBONES.register
@dataclasses.dataclass(frozen=True, kw_only=True)
class Held(SmallCNN):
    """SmallCNN, but for the waits."""

    name = "held"
    label = "SmallCNN that waits"
    citation = "for tests alone"

    def network(self, channels: int) -> nn.Module:
        network = super().network(channels)
        network.register_forward_pre_hook(Wait())
        return network

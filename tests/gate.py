"""Holds jobs in the middle, so that a test strikes while one runs, on a slow machine and on a fast one."""

from __future__ import annotations

import socket
import time
from collections.abc import Collection
from pathlib import Path
from typing import Literal

from sweeps import ROOT, TINY, WATCHDOG

#: The tiny grid, whose fine-tunes wait in their third epoch, and its attacks at their first gradient, while a gate is
#: closed. Its pre-training never waits.
HELD = TINY.replace("name: smallcnn", "name: held").replace("epochs: 2,", "epochs: 4,")

#: Holds the module "held".
EXTENSIONS = ROOT / "tests/extensions"
HERE = socket.gethostname()
Work = Literal["training", "attack"]


class Gate:
    """A folder that says what waits on which host, and in which the processes that wait say so.

    `environment` is what a sweep, and on a cluster its nodes, need to know the backbone of tests/extensions/held.py.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = {
            "SIGNSYM_EXTENSIONS": "held",
            "PYTHONPATH": str(EXTENSIONS),
            "SIGNSYM_TEST_GATE": str(folder),
        }

    def close(self, work: Work = "training", host: str = HERE) -> None:
        """From now on every job of the kind waits on the host when it is in its middle."""
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / f"{work}-closed-{host}").touch()

    def open(self, work: Work = "training", host: str = HERE) -> None:
        """Every job of the kind goes on."""
        (self.folder / f"{work}-closed-{host}").unlink()

    def hosts(self, work: Work = "training") -> set[str]:
        """The hosts on which a process came to the gate and has not gone on."""
        return {path.name.split("-waiting-")[1].rpartition("-")[0] for path in self.folder.glob(f"{work}-waiting-*")}

    def waiting(self, work: Work = "training") -> list[int]:
        """The processes of this machine whose job waits."""
        pids = [int(path.name.rpartition("-")[2]) for path in self.folder.glob(f"{work}-waiting-{HERE}-*")]
        return [pid for pid in pids if Path(f"/proc/{pid}").exists()]

    def until_waiting(self, count: int = 1, work: Work = "training", beside: Collection[int] = ()) -> list[int]:
        """Wait until so many processes of this machine, beside those of before, have a job that waits; their ids."""
        deadline = time.monotonic() + WATCHDOG
        while len(pids := [pid for pid in self.waiting(work) if pid not in beside]) < count:
            assert time.monotonic() < deadline, f"{len(pids)} of {count} processes came to the gate"
            time.sleep(0.02)
        return pids

"""A tiny grid, and running a sweep as a user does, where nothing can reach it."""

from __future__ import annotations

import contextlib
import fcntl
import functools
import os
import signal
import socket
import struct
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

#: Seconds of work: one pre-training, three fine-tunes, eight attack jobs.
TINY = """
name: tiny
seeds: [0]
experiments:
  - task: classification
    dataset: {name: digits, size: 8, classes: [5, 6, 7], train_images: 120, test_images: 60}
    backbone: {name: smallcnn, width: 4}
    weights: {pretrain: {dataset: {name: digits, size: 8, train_images: 200, test_images: 20}, epochs: 1}}
    rule: [bp, usf, brsf]
    finetune: {epochs: 2, lr: 0.001, head_lr: 0.002}
    attacks:
      - {name: [fgsm, pgd], gradient: [feedback, exact], epsilon: [0, 0.1]}
"""


#: The variable, of Ray's launcher, by which a Ray that is started has one CPU whatever the machine has: jobs run one
#: after the other, where nothing looks at jobs beside each other. Each worker imports torch and Ray Tune.
ONE = {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'}


@contextlib.contextmanager
def here(function, *arguments):
    """In place of `orchestrator.store.apart.apart`: the call is made in this process.

    A fresh one for each command would import torch.
    """
    yield functools.partial(function, *arguments)


def loopback_up():
    """Bring up `lo` of this process's network namespace."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        request = struct.pack("16sh14x", b"lo", 0)
        flags = struct.unpack("16sh14x", fcntl.ioctl(control, 0x8913, request))[1]  # SIOCGIFFLAGS
        fcntl.ioctl(control, 0x8914, struct.pack("16sh14x", b"lo", flags | 1))  # SIOCSIFFLAGS, IFF_UP


@functools.cache
def own_network() -> tuple[str, ...]:
    """The words that start a command where only loopback exists; none where the machine does not allow it.

    Ray listens on every interface of a machine with an outside address. Without a namespace of their own the tests'
    sweeps rely on Ray's token authentication, as every local sweep does.
    """
    inner = f"import sys; sys.path.insert(0, {str(ROOT / 'tests')!r}); import sweeps; sweeps.loopback_up()"
    for words in (("unshare", "--net"), ("unshare", "--user", "--map-root-user", "--net")):
        try:
            tried = subprocess.run([*words, sys.executable, "-c", inner], capture_output=True, cwd=ROOT)
        except OSError:
            return ()
        if tried.returncode == 0:
            start = f"{inner}; import os; os.execvp(sys.argv[1], sys.argv[1:])"
            return (*words, sys.executable, "-c", start)
    return ()


def start(*words: str | Path, **options) -> subprocess.Popen:
    """Start `python words...` from the repository's root in a network of its own, as its own process group."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1", **options.pop("env", {})}
    return subprocess.Popen(
        [*own_network(), sys.executable, *map(str, words)],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
        **options,
    )


#: Seconds after which a command counts as hanging, however slow the machine is.
WATCHDOG = 1800


def finish(process: subprocess.Popen, timeout: float = WATCHDOG) -> tuple[int, str]:
    """Exit status and output of a started command, which is ended with its group where it hangs."""
    try:
        output, _ = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        raise AssertionError(f"no end within {timeout:g} s; it printed:\n{output}") from None
    return process.returncode, output

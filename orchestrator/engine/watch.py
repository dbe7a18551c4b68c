"""Ends what a sweep's driver leaves behind, however it ended: `python watch.py MARK FOLDER`, a program of its own.

Its input is a pipe of the driver's, which closes when the driver is no more, also by SIGKILL. Ray's own processes then
stay for seconds, and some for ever; those that were started with MARK in their environment are ended, and FOLDER, with
Ray's sockets and logs, is removed. Standard library only: it waits beside the driver for days.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import sys
import time

#: The variable that marks the processes of a sweep's own Ray.
VARIABLE = "SIGNSYM_RAY"
#: Seconds after which what cannot be ended is left.
LONGEST = 30.0


def marked(mark: str) -> list[int]:
    """Ids of the processes that were started with the mark in their environment."""
    line = f"{VARIABLE}={mark}".encode()
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc/self") else []):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if line in file.read().split(b"\0"):
                pids.append(int(pid))
    return pids


def main(mark: str, folder: str) -> None:
    """Wait for the driver's end, then end what it left."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    deadline = time.monotonic() + LONGEST
    while (left := marked(mark)) and time.monotonic() < deadline:
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

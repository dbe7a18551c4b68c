"""Ends the processes that a sweep's driver leaves behind, however it ended: the program `python watch.py MARK FOLDER`.

Its input is a pipe from the driver, which closes when the driver ends, also by SIGKILL. Ray's processes then stay for
seconds, and some for ever; those that were started with MARK in their environment are killed, and FOLDER, with Ray's
sockets and logs, is removed. Standard library only, to stay small: it waits beside the driver for days.
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
#: Seconds after which processes that cannot be killed are left.
LONGEST = 30.0


def marked(mark: str) -> list[int]:
    """Ids of the processes that have the mark in their environment."""
    line = f"{VARIABLE}={mark}".encode()
    pids = []
    for pid in filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc/self") else []):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if line in file.read().split(b"\0"):
                pids.append(int(pid))
    return pids


def main(mark: str, folder: str) -> None:
    """Wait for the driver's end, then kill the processes that it left behind and remove the folder."""
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

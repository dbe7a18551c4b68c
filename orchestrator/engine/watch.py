"""Ends the processes that a sweep's driver leaves behind, however it ended: the program `python watch.py MARK FOLDER`.

Its input is a pipe from the driver, which closes when the driver ends, also by SIGKILL. Ray's processes then stay for
seconds, and some for ever; those that were started with MARK in their environment are killed, and FOLDER, with Ray's
sockets and logs, is removed. A process that renames itself writes its title over its environment: those of Ray are
known by their title and by the logs in FOLDER that they hold open. Standard library only, to stay small: it waits
beside the driver for days.
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


def processes(mark: str, folder: str) -> list[int]:
    """Ids of processes with the mark in their environment, or with Ray's title and an open file below the folder."""
    pids = map(int, filter(str.isdigit, os.listdir("/proc") if os.path.isdir("/proc/self") else []))
    return [pid for pid in pids if _marked(pid, mark) or _titled(pid, folder)]


def _marked(pid: int, mark: str) -> bool:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
        return f"{VARIABLE}={mark}".encode() in file.read().split(b"\0")
    return False


def _titled(pid: int, folder: str) -> bool:
    with contextlib.suppress(OSError):
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            if not file.read().startswith(b"ray::"):
                return False
        for number in os.listdir(f"/proc/{pid}/fd"):
            with contextlib.suppress(OSError):
                if os.readlink(f"/proc/{pid}/fd/{number}").startswith(os.path.join(folder, "")):
                    return True
    return False


def main(mark: str, folder: str) -> None:
    """Wait for the driver's end, then kill the processes that it left behind and remove the folder."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    sys.stdin.buffer.read()
    deadline = time.monotonic() + LONGEST
    scans_without = 0
    # A process that is just being executed shows neither environment nor title: a second look finds it.
    while scans_without < 2 and time.monotonic() < deadline:
        left = processes(mark, folder)
        scans_without = 0 if left else scans_without + 1
        for pid in left:
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.05)
    shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

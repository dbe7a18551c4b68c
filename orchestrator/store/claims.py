"""A sweep's sign of life in its store: what it runs, for `signsym status`, and what it has claimed, for other sweeps.

Each sweep writes one small file, sweeps/<id>.json, every few seconds. Two sweeps that are alive never hold the same
claim: a sweep writes down what it wants first and looks at the others' files then, and lets go where another wants
the same. Whichever of two comes second sees the other; when both come at once both let go and try again later. That
needs nothing of a file system but that a written file can be read, so it works on buckets and on NFS.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

from orchestrator.store.store import Store

#: Seconds between two signs, and after which a sweep without a new one counts as dead.
PERIOD, DEAD = 3.0, 30.0
#: Seconds after which a sign is old whatever the clocks of two machines say.
OLD = 600.0


class Claims:
    """This sweep's sign of life, written inside the block, and the jobs that it has claimed.

    `running` gives what is shown of the trials that run: a mapping with at least the job's key for each.
    """

    def __init__(self, store: Store, running: Callable[[], list[dict[str, Any]]]) -> None:
        self.store, self.running = store, running
        self.id = uuid.uuid4().hex
        self.path = f"sweeps/{self.id}.json"
        #: Keys of the claimed jobs.
        self.held: set[str] = set()
        self._beat = 0
        self._written = time.monotonic()
        self._others = _Others(store, self.id)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="signsym-claims", daemon=True)

    def __enter__(self) -> Claims:
        # Not in the thread: a store that cannot be written is noticed here, before anything runs.
        self._write()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.store.remove(self.path)

    def take(self, keys: Iterable[str]) -> set[str]:
        """Claim jobs; returns those of `keys` that were had. The others are another sweep's, as far as is known."""
        wanted = set(keys)
        with self._lock:
            self.held |= wanted
        self._write()
        refused = wanted & self._others.claimed()
        with self._lock:
            self.held -= refused
        if refused:
            self._write()
        return wanted - refused

    def holds(self, key: str) -> bool:
        """Whether the job is claimed, and this sweep was seen to be alive all the time since."""
        if self._slept():
            self._write()
        return key in self.held

    def drop(self, key: str) -> None:
        """Let go of a job. Others see it with the next sign."""
        with self._lock:
            self.held.discard(key)

    def claimed_elsewhere(self) -> set[str]:
        """Keys of the jobs that other living sweeps have claimed."""
        return self._others.claimed()

    def _slept(self) -> bool:
        """Whether this sweep was stopped, or without its store, for so long that it counts as dead elsewhere."""
        return time.monotonic() - self._written > DEAD - PERIOD

    def _write(self) -> None:
        with self._lock:
            if self._slept():
                # What it had claimed ahead may be done by now: it is claimed anew, and looked up, when its turn comes.
                self.held &= {trial["job"] for trial in self.running()}
            self._written = time.monotonic()
            self._beat += 1
            sign = _here() | {"at": time.time(), "beat": self._beat, "claims": sorted(self.held)}
            self.store.write_json(self.path, sign | {"running": self.running()})

    def _keep_alive(self) -> None:
        while not self._stop.wait(PERIOD):
            # The sweep itself will say that its store is gone; a missed sign is no reason to stop it.
            with contextlib.suppress(OSError):
                self._write()


class _Others:
    """The other sweeps on a store, as one of them sees them.

    Whether one is alive is told by its file changing, not by the clock of another machine.
    """

    def __init__(self, store: Store, own: str) -> None:
        self.store, self.own = store, own
        #: By the sweep's id: its last beat, and when this sweep first saw that, on its own clock.
        self._seen: dict[str, tuple[int, float]] = {}

    def claimed(self) -> set[str]:
        found: set[str] = set()
        for name in self.store.names("sweeps", ".json"):
            if name == f"{self.own}.json":
                continue
            # A file may vanish at any time, since its sweep ends.
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                sign = json.loads(self.store.read(f"sweeps/{name}"))
                if self._alive(name, sign):
                    found |= set(sign["claims"])
                else:
                    # Nobody needs to look at it again; a sweep that was only asleep writes a new one.
                    self.store.remove(f"sweeps/{name}")
        return found

    def _alive(self, name: str, sign: Mapping[str, Any]) -> bool:
        if not _lives_here(sign):
            return False
        now = time.monotonic()
        beat, since = self._seen.get(name, (None, now))
        if beat != sign["beat"]:
            self._seen[name] = (sign["beat"], now)
            return time.time() - float(sign["at"]) < OLD
        return now - since < DEAD


def alive(store: Store) -> list[dict[str, Any]]:
    """The last signs of the sweeps that are alive: host, pid, at (seconds since 1970), claims and running."""
    found = []
    for name, sign in store.read_json_files("sweeps").items():
        try:
            if _lives_here(sign) and time.time() - sign["at"] < DEAD:
                found.append(sign)
        except (KeyError, TypeError):
            store.skipped[f"sweeps/{name}.json"] = "no sweep's sign of life"
    return found


def _here() -> dict[str, Any]:
    """This process, so that another one on the same machine, or of the same SLURM job, can tell that it is dead."""
    place = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "born": _born(os.getpid())}
    return place | {"slurm_job": _slurm_job(), "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0))}


def _lives_here(sign: Mapping[str, Any]) -> bool:
    """False where the sign's process is known to be no more; True where that cannot be known.

    It ran on this machine, or in this SLURM job before that was put back into the queue: SLURM ends all of a job first.
    """
    here = _slurm_job()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    # Two sweeps of one job have the same count.
    if here and sign.get("slurm_job") == here and sign["slurm_restarts"] < restarts:
        return False
    return bool(sign["machine"] != _machine() or _born(sign["pid"]) == sign["born"] != "")


def _slurm_job() -> str:
    """The SLURM job that this process is of, with its cluster; "" outside of one."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return job and f"{os.environ.get('SLURM_CLUSTER_NAME', '')}:{job}"


def _machine() -> str:
    """This boot of this machine and this space of process ids; a container has one of its own."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown {uuid.getnode()} {os.getpid()}"


def _born(pid: int) -> str:
    """When a process of this machine began, in the kernel's ticks; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""

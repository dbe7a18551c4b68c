"""A sweep's heartbeat file in its store: its running trials, for `signsym status`, and its claims, for other sweeps.

Each sweep writes one small file, sweeps/<id>.json, every few seconds. Two sweeps that are alive never hold the same
claim: a sweep first writes its claims, then reads the files of the other sweeps, and drops every claim that another
one has too. The second of two sweeps sees the first; when both write at once, both drop the claim and try again later.
The file system only has to return a file that was written, so this works on buckets and on NFS.
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

from orchestrator.store.files import GONE, StoreError
from orchestrator.store.store import Store

#: Seconds between two heartbeats, and after which a sweep without a new one counts as dead.
PERIOD, DEAD = 3.0, 30.0
#: Seconds after which a heartbeat is old even where the clocks of two machines differ.
OLD = 600.0


class Claims:
    """A context that writes this sweep's heartbeat file, with the jobs that it has claimed.

    `running` gives the running trials: for each a mapping with at least the job's key.
    """

    def __init__(self, store: Store, running: Callable[[], list[dict[str, Any]]]) -> None:
        self.store, self.running = store, running
        self.id = uuid.uuid4().hex
        self.path = f"sweeps/{self.id}.json"
        #: Keys of the claimed jobs.
        self.held: set[str] = set()
        self._beat = 0
        self._written = time.monotonic()
        self._other_sweeps = _OtherSweeps(store, self.id)
        #: Whether a local store had grids or results when the sweep began.
        self._was_store = False
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._keep_alive, name="signsym-claims", daemon=True)

    def __enter__(self) -> Claims:
        # Written before the thread starts: a store that cannot be written raises here, before any job runs.
        self._write()
        self._was_store = self.store.folder is not None and self.store.is_store()
        # By the time of the first claim, Ray has been started, a sweep that lives has changed its file.
        self._other_sweeps.claimed()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            self.store.remove(self.path)

    def take(self, keys: Iterable[str]) -> set[str]:
        """Claim jobs; returns those of `keys` that no other sweep has claimed."""
        requested = set(keys)
        with self._lock:
            new = requested - self.held
            self.held |= requested
        # What nobody could compare with the other sweeps' claims is none.
        refused = new
        try:
            self._write()
            refused = requested & self._other_sweeps.claimed()
        finally:
            with self._lock:
                self.held -= refused
        if refused:
            self._write()
        return requested - refused

    def holds(self, key: str) -> bool:
        """Whether the job is claimed, and this sweep has counted as alive ever since."""
        if self._slept():
            self._write()
        return key in self.held

    def drop(self, key: str) -> None:
        """Drop the claim of a job. Other sweeps see it with the next heartbeat."""
        with self._lock:
            self.held.discard(key)

    def claimed_elsewhere(self) -> set[str]:
        """Keys of the jobs that other living sweeps have claimed."""
        return self._other_sweeps.claimed()

    def _slept(self) -> bool:
        """Whether this sweep was suspended, or without its store, for so long that others count it as dead."""
        return time.monotonic() - self._written > DEAD - PERIOD

    def _write(self) -> None:
        if self._was_store and not self.store.is_store():
            # Of a disk that was unmounted the empty folder is still there; without this file no job begins in it.
            raise StoreError(f"{self.store.uri} has neither grids nor results: {GONE}")
        with self._lock:
            if self._slept():
                # Jobs that were claimed in advance may be done by now: each is claimed again before it starts.
                self.held &= {trial["job"] for trial in self.running()}
            self._written = time.monotonic()
            self._beat += 1
            sign = _this_process() | {"at": time.time(), "beat": self._beat, "claims": sorted(self.held)}
            self.store.write_json(self.path, sign | {"running": self.running()})

    def _keep_alive(self) -> None:
        while not self._stop.wait(PERIOD):
            # The sweep will report a lost store itself; a missed heartbeat is no reason to stop it. Some file systems
            # of fsspec raise errors of their own, which must not end this thread either.
            with contextlib.suppress(Exception):
                self._write()


class _OtherSweeps:
    """The other sweeps on a store. A sweep is alive while its file changes, whatever another machine's clock says."""

    def __init__(self, store: Store, sweep_id: str) -> None:
        self.store, self.sweep_id = store, sweep_id
        #: By the sweep's file: its last beat, when this sweep first saw that, on its own clock, and whether it was old
        #: then.
        self._seen: dict[str, tuple[int, float, bool]] = {}

    def claimed(self) -> set[str]:
        claims: set[str] = set()
        for name in self.store.names("sweeps", ".json"):
            if name == f"{self.sweep_id}.json":
                continue
            # A file may vanish at any time, when its sweep ends.
            with contextlib.suppress(FileNotFoundError, ValueError, KeyError, TypeError):
                sign = json.loads(self.store.read(f"sweeps/{name}"))
                age, old = self._age(name, sign)
                if not _may_be_alive(sign) or age >= DEAD:
                    # Nobody needs it again; a sweep that was only suspended writes a new one.
                    self.store.remove(f"sweeps/{name}")
                elif not old:
                    claims |= set(sign["claims"])
        return claims

    def _age(self, name: str, sign: Mapping[str, Any]) -> tuple[float, bool]:
        """The seconds for which a sweep's file has not changed, and whether it was old when it was first seen.

        Then only the clocks of two machines can say so; where one is wrong by hours, its next heartbeat does.
        """
        now = time.monotonic()
        beat, since, old = self._seen.get(name, (sign["beat"], now, time.time() - float(sign["at"]) >= OLD))
        if beat != sign["beat"]:
            beat, since, old = sign["beat"], now, False
        self._seen[name] = beat, since, old
        return now - since, old


def alive(store: Store) -> list[dict[str, Any]]:
    """The last heartbeats of the sweeps that are alive: host, pid, at (seconds since 1970), claims and running.

    The clock of a sweep's machine may be wrong: when its file was written is also known from the store.
    """
    signs = []
    written = {entry.name: entry.modified for entry in store.entries("sweeps")}
    for name, sign in store.read_json_files("sweeps").items():
        try:
            times = (sign["at"], written.get(f"{name}.json", 0.0))
            if _may_be_alive(sign) and any(abs(time.time() - at) < DEAD for at in times):
                signs.append(sign)
        except (KeyError, TypeError):
            store.skipped[f"sweeps/{name}.json"] = "no sweep's sign of life"
    return signs


def _this_process() -> dict[str, Any]:
    """Identifies this process, so that another one on its machine, or of its SLURM job, can tell when it has ended."""
    place = {"host": socket.gethostname(), "pid": os.getpid(), "machine": _machine(), "born": _start_ticks(os.getpid())}
    return place | {"slurm_job": _slurm_job(), "slurm_restarts": int(os.environ.get("SLURM_RESTART_COUNT", 0))}


def _may_be_alive(sign: Mapping[str, Any]) -> bool:
    """False where the process of the heartbeat has certainly ended, else True.

    That is known of this machine's processes, and of this SLURM job's before it was requeued: SLURM ends them first.
    """
    slurm_job = _slurm_job()
    restarts = int(os.environ.get("SLURM_RESTART_COUNT", 0))
    # Two sweeps in one run of a job have the same count.
    if slurm_job and sign.get("slurm_job") == slurm_job and sign["slurm_restarts"] < restarts:
        return False
    return bool(sign["machine"] != _machine() or _start_ticks(sign["pid"]) == sign["born"] != "")


def _slurm_job() -> str:
    """The SLURM job of this process, with its cluster; "" outside of one."""
    job = os.environ.get("SLURM_JOB_ID", "")
    return job and f"{os.environ.get('SLURM_CLUSTER_NAME', '')}:{job}"


def _machine() -> str:
    """Identifies this machine's boot and this namespace of process ids, which differs between containers."""
    try:
        return f"{Path('/proc/sys/kernel/random/boot_id').read_text().strip()} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return f"unknown {uuid.getnode()} {os.getpid()}"


def _start_ticks(pid: int) -> str:
    """When a process of this machine started, in the kernel's ticks; "" where there is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""

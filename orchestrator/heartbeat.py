"""A sweep's sign of life in its store, so that `signsym status` can say what runs, from any terminal."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from typing import Any

from orchestrator.store import Store, StoreError

#: Seconds between two signs, and after which a sweep without a new one counts as dead.
PERIOD, DEAD = 3.0, 30.0


class Heartbeat:
    """Inside the block, `running()`, the keys of the jobs that run, is written to the store every few seconds."""

    def __init__(self, store: Store, running: Callable[[], Iterable[str]]) -> None:
        self.store, self.running = store, running
        self.path = f"sweeps/{uuid.uuid4().hex}.json"
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._beat, name="signsym-heartbeat", daemon=True)

    def __enter__(self) -> Heartbeat:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        self.store.remove(self.path)

    def _beat(self) -> None:
        while True:
            sign = {"host": socket.gethostname(), "pid": os.getpid(), "at": time.time(), "jobs": list(self.running())}
            # The sweep itself will say that its store is gone; a missed sign is no reason to stop it.
            with contextlib.suppress(StoreError):
                self.store.write_json(self.path, sign)
            if self._stop.wait(PERIOD):
                return


def alive(store: Store) -> list[dict[str, Any]]:
    """The last signs of the sweeps that are alive: host, pid, at (seconds since 1970) and jobs."""
    signs = store.read_json_files("sweeps").values()
    return [sign for sign in signs if time.time() - sign["at"] < DEAD]

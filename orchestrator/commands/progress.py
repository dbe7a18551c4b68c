"""What long work prints of how far it is: a line now and then, with an estimate of the time left."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator

from rich.console import Console

from orchestrator.engine.progress import duration

#: Seconds between two lines.
PERIOD = 10.0


class Lines:
    """Prints what a `store.progress.Progress` is told."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._what = ""
        #: When this stage began, when it was told of last, and when a line was printed last.
        self._began = self._reported = self._printed = time.monotonic()

    def __call__(self, what: str, done: int, total: int) -> None:
        """Print a line where the last one was PERIOD seconds ago; the time left is by this stage alone."""
        now = time.monotonic()
        if what != self._what:
            # It is told of when its first part is done.
            self._what, self._began = what, self._reported
        self._reported = now
        if now - self._printed >= PERIOD and 0 < done < total:
            self._printed = now
            left = duration((now - self._began) / done * (total - done))
            self._console.print(f"{done:,} of {total:,} {what}, about {left} left")


@contextlib.contextmanager
def waiting(console: Console, what: str) -> Iterator[None]:
    """Prints a line every PERIOD seconds while something that cannot say how far it is takes its time."""
    over, began = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(PERIOD):
            console.print(f"{what}: {duration(time.monotonic() - began)} so far")

    teller = threading.Thread(target=tell, daemon=True)
    teller.start()
    try:
        yield
    finally:
        over.set()
        teller.join()

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
        #: When this stage was first told of, how much was done then, and when a line was printed last.
        self._began = self._printed = time.monotonic()
        self._first = 0

    def __call__(self, what: str, done: int, total: int) -> None:
        """Print a line where the last one was PERIOD seconds ago; the time left is by this stage alone."""
        now = time.monotonic()
        if what != self._what:
            # What came before is of other work, such as the listing of a folder.
            self._what, self._began, self._first = what, now, done
        if now - self._printed >= PERIOD and 0 < done < total:
            self._printed = now
            further = done - self._first
            left = f", about {duration((now - self._began) / further * (total - done))} left" if further else ""
            self._console.print(f"{done:,} of {total:,} {what}{left}")


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

"""What the explorer does while nobody asks it for anything: it finds out and computes what pages will want."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator

from orchestrator.results.data import Data, Snapshot

#: Points of curves that are computed before anybody asks for them: some 2 kB each.
AHEAD = 50_000
#: Seconds without a request after which there is time for that.
CALM = 0.3
#: Seconds after which a store that could not be read is tried again.
LATER = 10.0


def follow(data: Data) -> None:
    """Do what is to be done for each moment of a store, without an end: in a thread of its own."""
    while True:
        snapshot = data.snapshot
        try:
            for step in steps(data, snapshot):
                while time.monotonic() - data.asked < CALM:
                    time.sleep(CALM / 4)
                step()
                if data.snapshot is not snapshot:
                    break
        except OSError:
            # A bucket that is out of reach for a while. Pages that need it say so.
            time.sleep(LATER)
        while data.snapshot is snapshot:
            time.sleep(CALM)


def steps(data: Data, snapshot: Snapshot) -> Iterator[Callable[[], object]]:
    """What is to be done, in steps so short that a request can wait for one.

    Outcomes are read as far as they are kept, then it is found out what grids ask for and where members of one's own
    stand, and curves and checks are computed, up to AHEAD points.
    """
    index, outcomes = snapshot.index, data.outcomes
    for first in range(0, len(index.parts), 8):
        if not outcomes.full:
            yield functools.partial(outcomes.blocks, index, range(first, min(first + 8, len(index.parts))))
    yield data.planned
    yield data.learn
    query = snapshot.query()
    flags, points = snapshot.flags(query), 0
    for first in range(0, len(index.ordered), 24):
        lines = index.ordered[first : first + 24]
        points += sum(len(query.epsilons(line)) for line in lines)
        if points > AHEAD or outcomes.full:
            break
        yield functools.partial(query.curves, lines)
        yield functools.partial(flags.of, lines)

"""Work between requests: planned cells, outcomes and curves are computed before pages need them."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator

from orchestrator.results.live_stores import Results
from orchestrator.results.snapshot import Snapshot

#: Points of curves that are computed in advance: some 2 kB each.
AHEAD = 50_000
#: Bytes of the files of outcomes that one step reads.
BYTES = 1 << 19
#: Seconds without a request before this work goes on.
CALM = 0.3
#: Seconds before a store that could not be read is tried once more.
LATER = 10.0


def follow(data: Results) -> None:
    """Run the steps for each snapshot of a store, without end; called in a separate thread."""
    while True:
        snapshot = data.snapshot
        try:
            for step in steps(data, snapshot):
                while data.answering or time.monotonic() - data.last_request < CALM:
                    time.sleep(CALM / 4)
                step()
                if data.snapshot is not snapshot:
                    break
        except OSError:
            # A bucket that is unreachable for a while. Pages that need it report it.
            time.sleep(LATER)
        while data.snapshot is snapshot:
            time.sleep(CALM)


def steps(data: Results, snapshot: Snapshot) -> Iterator[Callable[[], object]]:
    """The work for a snapshot, in steps so short that a request can wait for one.

    Outcomes are read as far as they are kept, then grids are planned and user-defined members imported, then curves
    and checks are computed, up to AHEAD points.
    """
    index, outcomes = snapshot.index, data.outcomes
    for numbers in outcomes.batches(index, BYTES):
        if not outcomes.full:
            yield functools.partial(outcomes.by_file, index, numbers)
    yield data.planned
    yield data.learn
    query, flags, points = snapshot.query(), snapshot.computed().flags, 0
    for first in range(0, len(index.ordered), 24):
        lines = index.ordered[first : first + 24]
        points += sum(len(query.epsilons(line)) for line in lines)
        if points > AHEAD or outcomes.full:
            break
        yield functools.partial(query.curves, lines)
        yield functools.partial(flags.of, lines)

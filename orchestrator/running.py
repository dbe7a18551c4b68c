"""The part of a sweep that needs Ray: the jobs of a plan, from the first trial to the last."""

from __future__ import annotations

import signal
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator import callbacks, connection, provenance, schedule, tables, work
from orchestrator.cells import Grid
from orchestrator.claims import Claims
from orchestrator.connection import ClusterLostError as ClusterLostError
from orchestrator.estimate import Survey
from orchestrator.events import Events
from orchestrator.feed import Failure, Feed
from orchestrator.frontier import Frontier
from orchestrator.packing import Packing
from orchestrator.plan import Job
from orchestrator.progress import View
from orchestrator.store import Store
from orchestrator.sweeping import Settings

#: How often in a row a Ray of this machine's own is started again without a job done in between.
RESTARTS = 3


def run_jobs(
    jobs: Mapping[str, Job], found: Survey, store: Store, grid: Grid, settings: Settings, console: Console
) -> None:
    """Run `jobs` until each is done, failed for good or blocked.

    Raises KeyboardInterrupt on SIGINT and SIGTERM, ClusterLostError where Ray is gone for good, StoreError where the
    store cannot be used any more, and NoResourcesError for a job that this machine can never run.
    """
    seconds = found.estimates(jobs.values())
    frontier = Frontier(jobs, seconds, settings.retries)
    view = View(jobs, seconds, console)
    trackers = [callbacks.build(choice) for choice in grid.callbacks]
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Claims(store, view.trials) as claims, Events(store, claims.id, jobs) as events:
            events.write("sweep_started", grid=grid.name, sweep=claims.id, storage=store.uri, jobs=len(jobs))
            context = _context(store, settings, claims)

            def once() -> None:
                packing = Packing(found.memory, gpus=any(node.get("GPU") for node in connection.nodes()))
                on_failure = _recorder(store)
                autoscaled = settings.address is not None
                feed = Feed(frontier, packing, claims, store, (view, events), on_failure, autoscaled=autoscaled)
                with view:
                    schedule.run(feed, context, work.execute, trackers, settings.trackers if trackers else None)

            _with_ray(once, frontier, events, settings, console)
    finally:
        signal.signal(signal.SIGTERM, before)
        connection.disconnect()


def _context(store: Store, settings: Settings, claims: Claims) -> work.Context:
    data_root = str(Path(settings.data_root).expanduser().resolve())
    git, versions = provenance.git(), provenance.versions()
    return work.Context(storage=store.uri, data_root=data_root, git=git, versions=versions, sign=claims.path)


def _recorder(store: Store) -> Callable[[Failure], None]:
    def record(failure: Failure) -> None:
        row: dict[str, Any] = {"job": failure.job.key, "title": failure.job.title, "attempt": failure.attempts}
        row |= {"error": failure.error, "traceback": failure.traceback, "host": failure.host}
        store.write_table("failures", failure.job.key, [row | {"failed_at": datetime.now(UTC)}], tables.FAILURES)

    return record


def _with_ray(
    run: Callable[[], None], frontier: Frontier, events: Events, settings: Settings, console: Console
) -> None:
    """Call `run` on Ray, and again on a new one where a Ray of this machine's own died."""
    restarts = 0
    while True:
        done = frontier.counts["done"]
        console.print("Starting Ray ..." if settings.address is None else f"Joining Ray at {settings.address} ...")
        for note in connection.connect(settings.address, dashboard=settings.dashboard):
            console.print(note, highlight=False, soft_wrap=True)
        # Once more, since Ray puts a handler of its own in its place that aborts the process.
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        if settings.address is None:
            connection.check_fits({job.resources for job in frontier.jobs.values()})
        try:
            run()
            return
        except ClusterLostError:
            restarts = 1 if frontier.counts["done"] > done else restarts + 1
            if settings.address is not None or restarts > RESTARTS:
                raise
            events.write("ray_lost")
            console.print("Ray's own processes died; starting it again", style="red")
            connection.disconnect()

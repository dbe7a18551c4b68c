"""Runs the jobs of a plan on Ray, from the first trial to the last."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator.engine import cluster, connection, schedule
from orchestrator.engine.connection import ClusterLostError as ClusterLostError
from orchestrator.engine.dispatch import Feed
from orchestrator.engine.frontier import Frontier
from orchestrator.engine.prepare import PreparedSweep
from orchestrator.engine.progress import ProgressDisplay
from orchestrator.engine.settings import Settings
from orchestrator.engine.trackers import Tracker
from orchestrator.gridfile import callbacks
from orchestrator.jobs.job import Job, JobContext
from orchestrator.plan.packing import MOST_AT_ONCE, MOST_IN_TURNS, Packing
from orchestrator.store import provenance, tables
from orchestrator.store.claims import Claims
from orchestrator.store.events import Events
from orchestrator.store.store import Store

#: Most restarts of a lost Ray in a row without a job done in between.
RESTARTS = 3


def run_jobs(
    jobs: Mapping[str, Job], prepared: PreparedSweep, store: Store, settings: Settings, console: Console
) -> None:
    """Run `jobs` until each is done, failed for good or blocked.

    Raises KeyboardInterrupt on SIGINT, SIGTERM and SIGHUP, ClusterLostError where Ray is lost for good, StoreError
    where the store can no longer be used, and ValueError for a Ray that cannot be started or joined and for a job
    that this machine can never run.
    """
    frontier = Frontier(jobs, prepared.seconds, settings.retries)
    display = ProgressDisplay(jobs, prepared.seconds, console)
    trackers = [Tracker(callbacks.build(choice), console) for choice in prepared.callbacks]
    stop = _Stop()
    # A sweep under nohup continues when its terminal closes.
    numbers = [signal.SIGINT, signal.SIGTERM]
    numbers += [signal.SIGHUP] if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN else []
    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        with Claims(store, display.trials) as claims, Events(store, claims.id, jobs) as events:
            events.write("sweep_started", grid=prepared.grid, sweep=claims.id, storage=store.uri, jobs=len(jobs))
            context = _context(store, settings, claims)

            def record(failure: dict[str, Any]) -> None:
                store.write_table("failures", failure["job"], [failure], tables.FAILURES)

            def run_once() -> None:
                shares_gpus = connection.shares_gpus()
                packing = Packing(
                    prepared.memory,
                    gpus=any(node.get("GPU") for node in cluster.nodes()),
                    total=connection.gpu_memory(),
                    most=MOST_AT_ONCE if shares_gpus else MOST_IN_TURNS,
                )
                autoscaled = settings.address is not None
                watchers = (display, events)
                feed = Feed(
                    frontier,
                    packing,
                    claims,
                    store,
                    watchers,
                    record,
                    autoscaled,
                    stopped=lambda: stop.requested,
                    shares_gpus=shares_gpus,
                )
                with display:
                    schedule.run(feed, context, _execute, trackers, settings.trackers if trackers else None)

            _with_ray(run_once, stop, frontier, events, settings, console)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        connection.disconnect()


class _Stop:
    """A signal handler that raises KeyboardInterrupt and records that a stop was requested."""

    def __init__(self) -> None:
        self.requested = False

    def __call__(self, number: int, frame: object) -> None:
        self.requested = True
        if number == signal.SIGHUP:
            # The terminal is closed: any further output to it would raise an error.
            for stream in (sys.stdout, sys.stderr):
                if stream.isatty():
                    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
        raise KeyboardInterrupt


def _context(store: Store, settings: Settings, claims: Claims) -> JobContext:
    data_root = str(Path(settings.data_root).expanduser().resolve())
    git, versions = provenance.git(), provenance.versions()
    return JobContext(storage=store.uri, data_root=data_root, git=git, versions=versions, sign=claims.path)


def _execute(key: str, spec: dict[str, Any], context: JobContext) -> dict[str, float] | None:
    # Imported in the worker only, so that the driver does not load torch.
    from orchestrator.work.execute import execute

    return execute(key, spec, context)


def _with_ray(
    run: Callable[[], None], stop: _Stop, frontier: Frontier, events: Events, settings: Settings, console: Console
) -> None:
    """Call `run` on Ray; call it again where the local Ray died, or Tune failed on a cluster that is still alive."""
    restarts = 0
    while True:
        done = frontier.counts["done"]
        console.print("Starting Ray ..." if settings.address is None else f"Joining Ray at {settings.address} ...")
        try:
            for note in connection.connect(settings.address, dashboard=settings.dashboard):
                console.print(note, soft_wrap=True)
            # Set again, since Ray replaces it by a handler that aborts the process.
            signal.signal(signal.SIGTERM, stop)
            if settings.address is None:
                cluster.check_fits({job.resources for job in frontier.jobs.values()})
            run()
            return
        except connection.StartError:
            raise
        except ClusterLostError as error:
            restarts = 1 if frontier.counts["done"] > done else restarts + 1
            if restarts > RESTARTS or (settings.address is not None and not connection.alive()):
                raise
            events.write("ray_lost", reason=str(error), traceback=traceback.format_exc())
            next_step = "starting Ray again" if settings.address is None else "joining it again"
            console.print(f"{error}; {next_step}", style="red")
            connection.disconnect()

"""What a trial costs beyond its own work, and how well two slots are used by a plan of two stages."""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.measure import line
from orchestrator.engine import connection, schedule
from orchestrator.engine.dispatch import Feed
from orchestrator.engine.frontier import Frontier
from orchestrator.engine.progress import ProgressDisplay
from orchestrator.engine.retries import Retries
from orchestrator.engine.trial import Execute
from orchestrator.jobs.job import Job, JobContext, Resources
from orchestrator.plan.packing import Packing
from orchestrator.store import Store, tables
from orchestrator.store.claims import Claims
from orchestrator.store.events import Events


def trivial(key: str, spec: dict[str, Any], context: JobContext) -> None:
    """A job without work of its own, but with a result to commit."""
    row = {name: None for name in tables.RESULTS.names}
    now = datetime.now(UTC)
    Store(context.storage).write_table("results", key, [row | {"cell": key, "finished_at": now}], tables.RESULTS)


def sleeps(key: str, spec: dict[str, Any], context: JobContext) -> None:
    """A job that takes its time and commits a result."""
    time.sleep(spec["seconds"])
    trivial(key, spec, context)


def plain(config: dict[str, Any]) -> None:
    """A trivial job as a Tune function with Tune's defaults."""
    trivial(str(config["key"]), {}, JobContext(storage=config["storage"], data_root="", git="", versions=""))


def main(jobs: int = 1000, peer_jobs: int = 10) -> None:
    """Print the cost of one of our trials and of one plain trial, and the use of two slots."""
    from ray import tune

    connection.connect(None, slots=2)
    with tempfile.TemporaryDirectory() as scratch:
        gaps = _trivial(f"{scratch}/store", jobs)
        started = time.monotonic()
        space = {"key": tune.grid_search(list(range(peer_jobs))), "storage": f"{scratch}/peer"}
        config = tune.RunConfig(storage_path=f"{scratch}/tune", verbose=0)
        tune.Tuner(plain, param_space=space, run_config=config).fit()
        peer = (time.monotonic() - started) / peer_jobs
        ours = sum(gaps) / len(gaps)
        line(f"a trial's cost, {jobs} trivial jobs on 2 slots", ours, peer, ours / peer, "ours at most 60 ms, 1/20")
        head, tail = sum(gaps[:100]) / 100, sum(gaps[-100:]) / 100
        print(f"first 100 jobs {head * 1e3:.1f} ms, last 100 {tail * 1e3:.1f} ms each: {tail / head:.2f} (at most 1.3)")
        driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        print(f"median {median(gaps) * 1e3:.1f} ms; driver {driver:.0f} MB (at most 400)")
        _two_stages(f"{scratch}/stages")
    connection.disconnect()


def _trivial(storage: str, count: int) -> list[float]:
    """Seconds between the commits of trivial jobs one after the other, the start of the workers left out."""
    _run({f"job{at:05}": _job(f"job{at:05}") for at in range(count)}, trivial, storage)
    done = sorted(Store(storage).results()["finished_at"])
    assert len(done) == count, f"{count - len(done)} of {count} jobs left no result"
    return [(after - before).total_seconds() for before, after in itertools.pairwise(done)][2:]


def _two_stages(storage: str) -> None:
    """6 fine-tunes of 2 s, each with 20 attacks of 0.5 s: 36 s of work for each of two slots."""
    table = {f"f{at}": _job(f"f{at}", seconds=2.0) for at in range(6)}
    for at, number in itertools.product(range(6), range(20)):
        table[f"f{at}-{number}"] = _job(f"f{at}-{number}", parents=(f"f{at}",), seconds=0.5)
    started = time.monotonic()
    _run(table, sleeps, storage)
    wall = time.monotonic() - started
    print(f"two stages: {wall:.1f} s, worker start included, of ideal 36 s: {36 / wall:.0%} (at least 75 %)")


def _run(table: Mapping[str, Job], execute: Execute, storage: str) -> None:
    store = Store(storage)
    seconds = {key: float(job.spec["seconds"]) for key, job in table.items()}
    with open(os.devnull, "w") as nowhere, Claims(store, list) as claims, Events(store, claims.id, table) as events:
        view = ProgressDisplay(table, seconds, Console(file=nowhere))
        frontier = Frontier(table, seconds, Retries())
        feed = Feed(frontier, Packing({}, gpus=False), claims, store, (view, events), print)
        schedule.run(feed, JobContext(storage=storage, data_root="", git="", versions="", sign=claims.path), execute)


def _job(key: str, parents: tuple[str, ...] = (), seconds: float = 0.0) -> Job:
    spec = {"seconds": seconds}
    need = Resources(gpu=0, cpu=1)
    return Job(key=key, kind="attack", parents=parents, spec=spec, resources=need, title=key, group=("attack",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=1000)
    parser.add_argument("--peer-jobs", type=int, default=10)
    main(**vars(parser.parse_args()))

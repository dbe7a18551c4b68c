"""What a trial costs beyond its own work: trivial jobs that only commit a result, against a plain Tune function."""

from __future__ import annotations

import argparse
import io
import itertools
import tempfile
import time
from datetime import UTC, datetime
from statistics import median
from typing import Any

from rich.console import Console

from benchmarks.measure import line
from orchestrator import schedule, tables
from orchestrator.cells import Resources
from orchestrator.frontier import Retries
from orchestrator.plan import Job
from orchestrator.progress import View
from orchestrator.store import Store
from orchestrator.work import Context


def trivial(key: str, spec: dict[str, Any], context: Context) -> None:
    """A job without work of its own, but with a result to commit."""
    row = {name: None for name in tables.RESULTS.names}
    now = datetime.now(UTC)
    Store(context.storage).write_table("results", key, [row | {"cell": key, "finished_at": now}], tables.RESULTS)


def plain(config: dict[str, Any]) -> None:
    """The same as a Tune function with Tune's defaults."""
    trivial(str(config["key"]), {}, Context(storage=config["storage"], data_root="", git="", versions=""))


def main(jobs: int = 300, peer_jobs: int = 10) -> None:
    """Print the cost of one of our trials and of one plain trial, on two slots."""
    from ray import tune

    with tempfile.TemporaryDirectory() as scratch:
        schedule.connect(None, slots=2)
        table = {f"job{at:05}": _job(f"job{at:05}") for at in range(jobs)}
        context = Context(storage=f"{scratch}/store", data_root="", git="", versions="")
        view = View(table, dict.fromkeys(table, 1.0), Console(file=io.StringIO()))
        schedule.run(table, dict.fromkeys(table, 1.0), context, trivial, print, view, Retries())
        store = Store(context.storage)
        done = sorted(store.results()["finished_at"])
        assert len(done) == jobs, f"{jobs - len(done)} of {jobs} jobs left no result"
        gaps = [(after - before).total_seconds() for before, after in itertools.pairwise(done)]
        ours = sum(gaps[2:]) / len(gaps[2:])
        started = time.monotonic()
        space = {"key": tune.grid_search(list(range(peer_jobs))), "storage": f"{scratch}/peer"}
        config = tune.RunConfig(storage_path=f"{scratch}/tune", verbose=0)
        tune.Tuner(plain, param_space=space, run_config=config).fit()
        peer = (time.monotonic() - started) / peer_jobs
        schedule.disconnect()
    line(f"a trial's cost, {jobs} trivial jobs on 2 slots", ours, peer, ours / peer, "ours at most 100 ms")
    head, tail = median(gaps[2:52]), median(gaps[-50:])
    print(f"first 50 jobs {head * 1e3:.1f} ms, last 50 {tail * 1e3:.1f} ms each")


def _job(key: str) -> Job:
    resources = Resources(gpu=0, cpu=1)
    return Job(key=key, kind="attack", parent=None, spec={}, resources=resources, title=key, group=("attack",))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--peer-jobs", type=int, default=10)
    main(**vars(parser.parse_args()))

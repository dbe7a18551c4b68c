"""A sweep of very many trivial jobs: what each costs, and whether that or the driver grows with their number.

`python -m benchmarks.long_sweep --jobs 10000`, a few minutes on two cores.
"""

from __future__ import annotations

import argparse
import itertools
import resource
import tempfile
import time

from benchmarks.orchestration import _job, _run, trivial
from orchestrator.engine import connection
from orchestrator.plan.estimate import survey_store
from orchestrator.store import Store


def main(jobs: int = 10_000) -> None:
    """Print milliseconds a job over all of them, over the first and over the last thousand, the driver's memory, and
    the seconds that `signsym status` and a resumed sweep need to see what is done.
    """
    connection.connect(None, slots=2)
    with tempfile.TemporaryDirectory() as storage:
        _run({f"job{at:05}": _job(f"job{at:05}") for at in range(jobs)}, trivial, storage)
        driver = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3
        connection.disconnect()
        # A file's time is when its job was committed; reading ten thousand files would be another benchmark.
        done = sorted(path.stat().st_mtime_ns / 1e9 for path in (Store(storage).folder / "results").glob("*.parquet"))
        assert len(done) == jobs, f"{jobs - len(done)} of {jobs} jobs left no result"
        # The first two commits come at the end of the workers' start.
        gaps = [after - before for before, after in itertools.pairwise(done)][2:]
        many = min(1000, len(gaps) // 2)
        head, tail = sum(gaps[:many]) / many, sum(gaps[-many:]) / many
        print(f"{jobs} jobs on 2 slots: {sum(gaps) / len(gaps) * 1e3:.1f} ms a job (at most 15)")
        print(f"first {many} {head * 1e3:.1f} ms, last {many} {tail * 1e3:.1f} ms: {tail / head:.2f} (at most 1.3)")
        print(f"driver {driver:.0f} MB (at most 500)")
        started = time.monotonic()
        survey_store(Store(storage))
        seconds = time.monotonic() - started
        (log,) = (Store(storage).folder / "events").glob("*.jsonl")
        print(f"seen in {seconds:.1f} s, {seconds / jobs * 1e3:.2f} ms a job")
        print(f"event log: {log.stat().st_size / jobs:.0f} bytes a job")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=10_000)
    main(**vars(parser.parse_args()))

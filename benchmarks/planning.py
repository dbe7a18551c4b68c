"""What planning costs: a million cells from nothing and with all of them done, and a finished sweep of 10,000 jobs."""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

from orchestrator.gridfile.grid import load
from orchestrator.jobs import keys
from orchestrator.plan.compile import Plan, compile_plan
from orchestrator.plan.estimate import survey_store
from orchestrator.store import Store, tables

#: Models x (4 attacks x 2 gradients x epsilons + 1).
GRID = """
name: large
seeds: {seeds}
experiments:
  - task: classification
    dataset: [{{name: digits, size: 32}}, {{name: digits, size: 40}}]
    backbone: [{{name: smallcnn, width: 4}}, {{name: smallcnn, width: 8}}]
    rule: [usf, frsf, brsf, fa, {{name: usf, scale: xavier}}]
    attacks:
      - {{name: fgsm, gradient: [feedback, exact], epsilon: {epsilons}}}
      - {{name: pgd, steps: 5, gradient: [feedback, exact], epsilon: {epsilons}}}
      - {{name: pgd, steps: 10, gradient: [feedback, exact], epsilon: {epsilons}}}
      - {{name: pgd, steps: 20, gradient: [feedback, exact], epsilon: {epsilons}}}
"""


def main(seeds: int = 50, epsilons: int = 125) -> None:
    """Print seconds and memory of plans of about seeds x 20 x 8 x epsilons cells, and of a resume of 10,000 jobs."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "large.yaml")
        path.write_text(GRID.format(seeds=list(range(seeds)), epsilons=[at / 1000 for at in range(epsilons)]))
        started = time.monotonic()
        plan = compile_plan(load(path), set(), set())
        print(f"plan of {len(plan.cells):,} cells: {time.monotonic() - started:.1f} s (below 10), {_memory():.0f} MB")
        store = Store(f"{scratch}/store")
        _finish(plan, store)
        del plan
        started = time.monotonic()
        found = survey_store(store)
        again = compile_plan(load(path), found.done_cells, found.done_models)
        assert not again.jobs
        print(f"again with all done: {time.monotonic() - started:.1f} s (below 10), {_memory():.0f} MB (below 1,500)")
        _resume(Path(scratch))


def _resume(scratch: Path) -> None:
    """A second run of a finished grid, as a user starts it: 1,000 models and 9,000 attack jobs."""
    path = scratch / "finished.yaml"
    path.write_text(GRID.format(seeds=list(range(50)), epsilons=[0, 0.1, 0.2]))
    plan = compile_plan(load(path), set(), set())
    _finish(plan, Store(f"{scratch}/finished"))
    started = time.monotonic()
    words = [sys.executable, "orchestrator/sweep.py", str(path), "--storage", f"{scratch}/finished"]
    done = subprocess.run(words, capture_output=True, text=True, cwd=Path(__file__).resolve().parents[1])
    assert "Nothing to do" in done.stdout, done.stdout + done.stderr
    print(f"resume of {len(plan.jobs):,} finished jobs: {time.monotonic() - started:.1f} s (below 15)")


def _finish(plan: Plan, store: Store) -> None:
    """Put what the plan's jobs would leave into the store, without running them."""
    empty, now = dict.fromkeys(tables.RESULTS.names), datetime.now(UTC)
    for key, job in plan.jobs.items():
        if job.kind != "attack":
            store.write_json(f"models/{key}/record.json", {"spec": job.spec, "seconds": 1.0, "history": []})
            continue
        _, backbone, dataset, attack = job.group
        row = empty | {"job": key, "backbone": backbone, "dataset": dataset, "attack": attack, "seconds": 1.0}
        rows = [row | {"cell": cell, "finished_at": now} for cell, *_ in keys.cells(job.spec)]
        store.write_table("results", key, rows, tables.RESULTS)


def _memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3


if __name__ == "__main__":
    os.chdir(Path(__file__).resolve().parents[1])
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--epsilons", type=int, default=125)
    main(**vars(parser.parse_args()))

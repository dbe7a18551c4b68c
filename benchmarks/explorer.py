"""The explorer over a large store: 1,000,000 results and 20,000,000 outcomes, made up.

    python benchmarks/explorer.py [--results N] [--outcomes N] [--store DIR]

Prints the time from opening the store to its first page, the time of filters on the server after that, and the memory
of the process at most. A store that is there already is used again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import tables

BACKBONES, DATASETS = 25, 20
RULES = ("bp", "fa", "usf", "frsf", "brsf")
ATTACKS = ("fgsm", "pgd", "bim", "mim", "square")
GRADIENTS = ("feedback", "exact", "transfer")
EPSILONS = tuple(round(0.01 * at, 2) for at in range(10))
SEEDS = 27
#: A job writes a file of each kind. Here it holds many models, so that the store has 200 files and not 100,000.
JOBS_PER_FILE = 500


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=int, default=1_000_000)
    parser.add_argument("--outcomes", type=int, default=20_000_000)
    parser.add_argument("--store", type=Path)
    parser.add_argument("--look", action="store_true", help=argparse.SUPPRESS)
    parsed = parser.parse_args()
    if parsed.look:
        print(json.dumps(look(parsed.store)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        store = parsed.store or Path(temporary)
        if not (store / "results").exists():
            make(store, parsed.results, parsed.outcomes)
        # A process of its own: its memory is the explorer's alone.
        words = [sys.executable, __file__, "--look", "--store", str(store)]
        found = json.loads(subprocess.run(words, capture_output=True, text=True, check=True).stdout)
    print(f"{found.pop('results'):,} results")
    for name, value in found.items():
        print(f"{name:<40} {value:8.2f}")


def look(store: Path) -> dict[str, float]:
    """Seconds, and GB of memory at most, of a session over the store."""
    started = time.perf_counter()
    from orchestrator.explorer import pages
    from orchestrator.explorer.data import Data
    from orchestrator.explorer.pages.context import context_of
    from orchestrator.explorer.render import Look, rendered

    found = {"imports, s": time.perf_counter() - started}

    def timed(name: str, search: str) -> None:
        started = time.perf_counter()
        context = context_of(data, search)
        parts = rendered(pages.build(context), Look())
        json.dumps([part.to_plotly_json() for part in parts], default=lambda value: value.to_plotly_json())
        found[name] = time.perf_counter() - started

    started = time.perf_counter()
    data = Data(str(store))
    found["reading and index, s"] = time.perf_counter() - started
    timed("first page, s", "")
    for name, search in {
        "filter by backbone, s": "?b=net1",
        "filter by backbone and attack, s": "?b=net2&a=pgd",
        "filter by rule, s": "?b=net2&r=frsf,bp",
        "filter by seeds, s": "?b=net2&a=pgd&s=0,1,2",
        "gap, s": "?p=gap&b=net3&a=pgd",
        "tables, s": "?p=tables&t=all&b=net3",
        "flags, s": "?p=flags&b=net3&a=pgd",
        "the same page again, s": "?b=net1",
    }.items():
        timed(name, search)
    found["first page from the start, s"] = found["reading and index, s"] + found["first page, s"]
    found["memory at most, GB"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
    return {"results": len(data.snapshot.index), **found}


def make(store: Path, results: int, outcomes: int) -> None:
    """Write the store."""
    for folder in ("results", "outcomes"):
        (store / folder).mkdir(parents=True)
    images = max(1, outcomes // results)
    models = itertools.product(range(BACKBONES), range(DATASETS), ATTACKS, GRADIENTS, RULES, range(SEEDS))
    jobs = itertools.islice(models, -(-results // len(EPSILONS)))
    for number, chunk in enumerate(iter(lambda: list(itertools.islice(jobs, JOBS_PER_FILE)), [])):
        rows = [(*job, at) for job in chunk for at in range(len(EPSILONS))]
        _write(store, number, rows, images)


def _write(store: Path, number: int, rows: list[tuple[object, ...]], images: int) -> None:
    generator = np.random.default_rng(number)
    backbone, dataset, attack, gradient, rule, seed, at = zip(*rows, strict=True)
    # As long as keys are.
    jobs = [f"{number:064x}"] * len(rows)
    cells = [f"{number:032x}{row:032x}" for row in range(len(rows))]
    shown: dict[str, object] = {name: [None] * len(rows) for name in tables.RESULTS.names}
    shown |= {name: ["{}"] * len(rows) for name in shown if name.endswith("_params") or name == "finetune"}
    shown |= {"cell": cells, "job": jobs, "finetune_job": jobs, "task": ["classification"] * len(rows)}
    shown |= {"backbone": [f"net{b}" for b in backbone], "dataset": [f"set{d}" for d in dataset]}
    shown |= {"weights": ["null"] * len(rows), "attack": attack, "gradient": gradient, "rule": rule, "seed": seed}
    shown |= {"epsilon": [EPSILONS[a] for a in at], "epsilon_label": [f"{EPSILONS[a]:g}" for a in at]}
    shown |= {"norm": ["linf"] * len(rows), "metric": ["top1"] * len(rows), "n": [images] * len(rows)}
    shown |= {"chance": [0.1] * len(rows), "steps": [5] * len(rows), "step_size": [0.01] * len(rows)}
    shown |= {"git": ["abc"] * len(rows), "finished_at": [datetime.now(UTC)] * len(rows)}
    robust = generator.random((len(rows), images)) < np.array([[0.9 - 0.08 * a] for a in at])
    shown |= {"value": robust.mean(axis=1)}
    table = pa.table({field.name: pa.array(shown[field.name], field.type) for field in tables.RESULTS})
    pq.write_table(table, store / f"results/{number:064x}.parquet", compression="zstd")
    each = {
        "cell": pa.array(np.repeat(cells, images), pa.string()),
        "image": np.tile(np.arange(images), len(rows)),
        "robust": robust.ravel(),
        "zero_grad": np.zeros(robust.size, dtype=bool),
    }
    empty = {field.name: pa.nulls(robust.size, field.type) for field in tables.OUTCOMES if field.name not in each}
    whole = pa.table({name: (each | empty)[name] for name in tables.OUTCOMES.names}).cast(tables.OUTCOMES)
    pq.write_table(whole, store / f"outcomes/{number:064x}.parquet", compression="zstd")


if __name__ == "__main__":
    main()

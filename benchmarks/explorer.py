"""The explorer over a large store: 1,000,000 results and 20,000,000 outcomes, made up.

    python -m benchmarks.explorer [--results N] [--outcomes N] [--store DIR]

Starts `signsym explore` and asks it as a browser does: seconds from the command and from listening to the first page,
seconds of filters on the server that nobody looked at before, and memory at most. The peer is the same numbers point by
point, as one would write it in a notebook. A store that is there already is used again.
"""

from __future__ import annotations

import argparse
import itertools
import json
import re
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.measure import in_turn, line, ratio
from orchestrator.store import tables

BACKBONES, DATASETS = 3, 20
RULES = ("bp", "fa", "usf", "frsf", "brsf")
ATTACKS = ("fgsm", "pgd", "bim", "mim", "square")
GRADIENTS = ("feedback", "exact", "transfer")
EPSILONS = tuple(round(0.01 * at, 2) for at in range(10))
SEEDS = 27
#: A job writes a file of each kind. Here it holds many models, so that the store has 200 files and not 100,000.
JOBS_PER_FILE = 500
#: What a browser asks for when it opens an address, beside the files of the page.
PAGE = {
    "output": "..results.children...shape.data..",
    "outputs": [{"id": "results", "property": "children"}, {"id": "shape", "property": "data"}],
    "changedPropIds": ["url.search"],
}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--results", type=int, default=1_000_000)
    parser.add_argument("--outcomes", type=int, default=20_000_000)
    parser.add_argument("--store", type=Path)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        store = parsed.store or Path(temporary)
        if not (store / "results").exists():
            make(store, parsed.results, parsed.outcomes)
        served(store)
        compared(store)


def served(store: Path) -> None:
    """Print what it takes to look at the store."""
    started = time.perf_counter()
    command = [sys.executable, "-m", "orchestrator.commands.cli", "explore", str(store), "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None, "asked for above"
            print(process.stdout.readline().strip())
            (address,) = re.findall(r"http://[\d.:]+/", process.stdout.readline())
            listening = time.perf_counter()
            for path in ("", "_dash-layout", "_dash-dependencies"):
                with urllib.request.urlopen(address + path) as answer:
                    answer.read()
            size = asked(address, "")
            now = time.perf_counter()
            show("first page, from the command, s", now - started)
            show("first page, from listening, s", now - listening)
            show("first page, kB", size / 1e3)
            for name, search in {
                "filter by backbone, s": "?b=net1",
                "filter by data set and attack, s": "?b=net2&d=set3&a=pgd",
                "filter by rule, s": "?b=net2&d=set4&r=frsf,bp",
                "filter by seeds, s": "?b=net2&a=pgd&s=0,1,2",
                "gap, s": "?p=gap&b=net1&d=set5",
                "gap as a heat map, s": "?p=gap&b=net1&d=set6&as=heat",
                "tables, s": "?p=tables&t=all&b=net1&d=set7,set8",
                "flags, s": "?p=flags&b=net2&d=set9",
                "the same page again, s": "?b=net1",
            }.items():
                started = time.perf_counter()
                asked(address, search)
                show(name, time.perf_counter() - started)
            status = Path(f"/proc/{process.pid}/status").read_text()
            show("memory at most, GB", int(re.findall(r"VmHWM:\s+(\d+)", status)[0]) / 1e6)
        finally:
            process.terminate()


def asked(address: str, search: str) -> int:
    """Ask for a page; the bytes of its answer."""
    inputs = [{"id": "url", "property": "search", "value": search}, {"id": "again", "property": "data"}]
    body = json.dumps(PAGE | {"inputs": inputs}).encode()
    request = urllib.request.Request(f"{address}_dash-update-component", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request) as answer:
        return len(answer.read())


def show(name: str, value: float) -> None:
    """Print one figure."""
    print(f"{name:<40} {value:8.2f}", flush=True)


def compared(store: Path) -> None:
    """The intervals and gaps of a page, all at once and point by point."""
    from orchestrator.results.live_store import LiveStore
    from orchestrator.results.query import Query
    from signsym_core.statistics.intervals import gap, interval

    data = LiveStore(str(store), at_once=True)
    index = data.snapshot.index
    lines = list(index.chosen(backbone=("net1",), dataset=("set1",)))[:72]
    query = Query(index, data.snapshot.outcomes)
    query.curves(lines)

    def ours() -> object:
        return Query(index, data.snapshot.outcomes).curves(lines)

    def peer() -> object:
        found = []
        for each in lines:
            for epsilon in query.epsilons(each):
                x = np.array([o.scores for o in query.cells(each, epsilon).values()], dtype=float)
                found.append(interval(x))
                for other in (query.bp(each), query.exact(each)):
                    if other is not None:
                        found.append(gap(x, [o.scores for o in query.cells(other, epsilon).values()]))
        return found

    times = in_turn({"ours": ours, "peer": peer}, rounds=5, warm_up=1)
    found = ratio(times, "ours", "peer")
    line("intervals and gaps of 72 lines", min(times["ours"]), min(times["peer"]), found, "peer: point by point")


def make(store: Path, results: int, outcomes: int, seeds: int = SEEDS) -> None:
    """Write the store."""
    for folder in ("results", "outcomes"):
        (store / folder).mkdir(parents=True)
    images = max(1, outcomes // results)
    models = itertools.product(range(BACKBONES), range(DATASETS), ATTACKS, GRADIENTS, RULES, range(seeds))
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
    tuned = [
        f"{b:016x}{d:016x}{RULES.index(r):016x}{s:016x}"
        for b, d, r, s in zip(backbone, dataset, rule, seed, strict=True)
    ]
    shown |= {"cell": cells, "job": jobs, "finetune_job": tuned, "task": ["classification"] * len(rows)}
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

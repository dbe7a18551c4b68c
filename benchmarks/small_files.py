"""A store of many small files, as jobs leave them and after `signsym compact`: seconds of CPU and of a clock.

    python -m benchmarks.small_files [--jobs N] [--store DIR]

Makes results and outcomes of N jobs with digests, and measures `signsym explore` up to its first page, `signsym
status` and `signsym plan` on them before and after they are merged. A sweep keeps the plan of its grid in the user's
cache; here that begins empty, so that the first `status` has to plan. The machine's load is printed, since seconds of a
clock depend on it. A store that is there already is used again.
"""

from __future__ import annotations

import argparse
import itertools
import os
import re
import resource
import subprocess
import sys
import tempfile
import time
import urllib.request
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.explorer import asked
from orchestrator.gridfile.grid import load
from orchestrator.gridfile.stored import keep_grid
from orchestrator.jobs import keys
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store, rowcopy, tables
from orchestrator.store.store import sealed_table

#: 20 models for each seed, each with 11 attack jobs: those of six epsilons, but for clean performance.
GRID = """
name: small
seeds: {seeds}
experiments:
  - task: classification
    dataset: [{{name: digits, size: 32}}, {{name: digits, size: 40}}]
    backbone: [{{name: smallcnn, width: 4}}, {{name: smallcnn, width: 8}}]
    rule: [bp, usf, frsf, brsf, fa]
    attacks:
      - {{name: fgsm, gradient: [feedback, exact], epsilon: [0, 0.01, 0.02, 0.05, 0.1, 0.2]}}
      - {{name: [pgd, bim, mim], steps: 5, gradient: [feedback, exact], epsilon: [0, 0.01, 0.02, 0.05, 0.1, 0.2]}}
"""
IMAGES = 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--jobs", type=int, default=10_000)
    parser.add_argument("--store", type=Path)
    parsed = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        os.environ["SIGNSYM_CACHE"] = f"{temporary}/cache"
        store = parsed.store or Path(temporary, "store")
        if not (store / "results").exists():
            make(store, parsed.jobs)
        measure(store, "loose")
        run("compact", store)
        measure(store, "compacted")


def measure(store: Path, form: str) -> None:
    """Print what it takes to look at a store."""
    files = sum(len(list((store / folder).iterdir())) for folder in ("results", "outcomes"))
    print(f"{form}: {files:,} files of results and outcomes, load {os.getloadavg()[0]:.1f}", flush=True)
    run("status", store)
    run("status", store)
    explore(store)
    run("plan", store.parent / f"{store.name}.yaml", "--storage", store)


def run(command: str, *words: Path | str) -> None:
    """Print the seconds of a command."""
    started, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_CHILDREN)
    subprocess.run([*_signsym(), command, *map(str, words)], check=False, stdout=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"  {command:<28} {time.perf_counter() - started:6.2f} s, {cpu:6.2f} s of CPU", flush=True)


def explore(store: Path) -> None:
    """Print the seconds from the command to the explorer's first page."""
    started = time.perf_counter()
    with subprocess.Popen([*_signsym(), "explore", str(store), "--port", "0"], stdout=subprocess.PIPE, text=True) as it:
        assert it.stdout is not None, "a pipe was asked for"
        it.stdout.readline()
        (address,) = re.findall(r"http://[\d.:]+/", it.stdout.readline())
        for path in ("", "_dash-layout", "_dash-dependencies"):
            urllib.request.urlopen(address + path).read()
        asked(address, "")
        seconds, ticks = (
            time.perf_counter() - started,
            Path(f"/proc/{it.pid}/stat").read_text().rpartition(")")[2].split(),
        )
        it.terminate()
    cpu = (int(ticks[11]) + int(ticks[12])) / os.sysconf("SC_CLK_TCK")
    print(f"  {'explore, to the first page':<28} {seconds:6.2f} s, {cpu:6.2f} s of CPU", flush=True)


def make(folder: Path, jobs: int) -> None:
    """Write a store of `jobs` attack jobs and the grid that asks for them."""
    path = folder.parent / f"{folder.name}.yaml"
    folder.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(GRID.format(seeds=list(range(-(-jobs // 160)))))
    grid, store, generator = load(path), Store(str(folder)), np.random.default_rng(0)
    keep_grid(store, grid.name, grid.text, grid.sets)
    for kind in ("results", "outcomes"):
        (folder / kind).mkdir(parents=True, exist_ok=True)
    plan = compile_plan(grid, set(), set()).jobs
    for job in itertools.islice((job for job in plan.values() if job.kind == "attack"), jobs):
        model = plan[job.parents[0]].spec
        cells = list(keys.cells(job.spec))
        robust = generator.random((len(cells), IMAGES)) < 0.5
        common = dict.fromkeys(tables.RESULTS.names)
        common |= {name: "{}" for name in common if name.endswith("_params")}
        common |= {name: model[name]["name"] for name in ("dataset", "backbone", "rule")}
        for name in ("dataset", "backbone"):
            common[f"{name}_params"] = keys.canonical(model[name]["parameters"])
        common |= {"job": job.key, "finetune_job": job.spec["model"], "task": "classification", "weights": "null"}
        common |= {"finetune": "{}", "seed": job.spec["seed"], "attack": job.spec["attack"]["name"], "norm": "linf"}
        common |= {"metric": "top1", "n": IMAGES, "chance": 0.1, "git": "0", "versions": "{}", "device": "cpu"}
        common |= {"seconds": 1.0, "finished_at": datetime.now(UTC)}
        rows = [
            common | {"cell": cell, "gradient": gradient, "epsilon": epsilon, "epsilon_label": label, "value": mean}
            for (cell, gradient, epsilon, label), mean in zip(cells, robust.mean(axis=1).tolist(), strict=True)
        ]
        outcomes = {
            "cell": np.repeat([cell for cell, *_ in cells], IMAGES),
            "image": np.tile(np.arange(IMAGES), len(cells)),
            "robust": robust.ravel(),
            "zero_grad": np.zeros(robust.size, dtype=bool),
        }
        columns = [
            pa.array(outcomes[f.name], f.type) if f.name in outcomes else pa.nulls(robust.size, f.type)
            for f in tables.OUTCOMES
        ]
        # Without waiting for the disk, which `Store.write` does for each file.
        for kind, schema, table in (
            ("results", tables.RESULTS, pa.Table.from_pylist(rows, tables.RESULTS)),
            ("outcomes", tables.OUTCOMES, pa.Table.from_arrays(columns, schema=tables.OUTCOMES)),
        ):
            (folder / f"{kind}/{job.key}.parquet").write_bytes(sealed_table(table, schema, copy=rowcopy.written(table)))


def _signsym() -> list[str]:
    return [sys.executable, "-m", "orchestrator.commands.cli"]


if __name__ == "__main__":
    main()

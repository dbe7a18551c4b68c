"""Rows of results and of their outcomes as an attack job writes them, for tests of what reads and writes a store."""

from __future__ import annotations

from datetime import UTC, datetime

from orchestrator.store import tables


def result(cell, n=4, hits=2, **more):
    """A row of results, of `hits` robust images of `n`."""
    row = dict.fromkeys(tables.RESULTS.names)
    row |= {name: "{}" for name in row if name.endswith("_params")}
    row |= {"cell": cell, "job": cell, "finetune_job": "f", "task": "classification", "dataset": "digits"}
    row |= {"backbone": "smallcnn", "weights": "null", "finetune": "{}", "rule": "bp", "seed": 0, "attack": "pgd"}
    row |= {"gradient": "exact", "epsilon": 0.1, "epsilon_label": "0.1", "norm": "linf", "metric": "top1"}
    row |= {"value": hits / n, "n": n, "chance": 0.25, "steps": 5, "step_size": 0.05, "reach": 1.0, "seconds": 1.0}
    return row | {"finished_at": datetime.now(UTC)} | more


def outcomes(cell, n=4, hits=2):
    """The outcomes of `result`."""
    none = {"ap": None, "queries": None, "distance": None, "zero_grad": False}
    return [{"cell": cell, "image": image, "robust": image < hits, "linf": 0.1, **none} for image in range(n)]


def put(store, job, *cells, **more):
    """A job's files with a result for each of `cells`."""
    store.write_table("outcomes", job, [row for cell in cells for row in outcomes(cell)], tables.OUTCOMES)
    store.write_table("results", job, [result(cell, **{"job": job} | more) for cell in cells], tables.RESULTS)


def record(key, spec=None, seconds=1.0):
    """A finished model's record."""
    empty = {"backbone": {"name": "smallcnn"}, "dataset": {"name": "digits"}, "task": {"name": "classification"}}
    spec = spec or {"kind": "finetune", "finetune": {}, "seed": 0, **empty}
    return {"job": key, "spec": spec, "seconds": seconds, "classes": ["5", "6"], "channels": 1, "history": []}

"""The table of alignment in a store: written with the model, exported, verified, the same after a kill."""

from __future__ import annotations

import json

import pyarrow.parquet as pq
import pytest
from gridfiles import base, written
from rich.console import Console

from orchestrator.commands.verify import verify
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.results.export import export
from orchestrator.store import Store, tables
from orchestrator.work import execute

DATA = {"name": "digits", "size": 8, "train_images": 40, "test_images": 10, "classes": [0, 1, 2]}


def jobs(folder):
    changes = {"dataset": DATA, "backbone": {"name": "smallcnn", "width": 2}, "rule": "brsf", "finetune": {"epochs": 3}}
    plan = compile_plan(load(written(folder, base(**changes))), set(), set())
    return [(key, json.loads(json.dumps(dict(job.spec)))) for key, job in plan.jobs.items()]


def context(folder, name):
    return JobContext(storage=str(folder / name), data_root=str(folder), git="", versions="{}")


def test_it_is_stored_exported_and_verified(tmp_path):
    where = context(tmp_path, "store")
    for key, spec in jobs(tmp_path):
        execute.execute(key, spec, where)
    store = Store(where.storage)
    finetune = next(iter(store.done_models()))
    rows = store.table("alignment", tables.ALIGNMENT).to_pylist()
    assert {row["job"] for row in rows} == {finetune}
    assert [row["epoch"] for row in rows] == [epoch for epoch in (1, 2, 3) for _ in range(7)]
    assert export([store], "alignment", tmp_path / "alignment.parquet").rows == 21
    exported = pq.read_table(tmp_path / "alignment.parquet").to_pylist()
    assert {(row["rule"], row["backbone"], row["seed"]) for row in exported} == {("brsf", "smallcnn", 0)}
    assert {row["angle"] for row in exported} == {row["angle"] for row in rows}
    assert verify(store, Console(quiet=True)) == 0
    file = tmp_path / "store/alignment" / f"{finetune}.parquet"
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    assert verify(Store(where.storage), Console(quiet=True)) == 1


@pytest.mark.slow
def test_a_fine_tune_that_was_killed_has_the_rows_of_an_undisturbed_one(tmp_path, monkeypatch):
    (key, spec), *_ = jobs(tmp_path)
    kept = Store.save_progress

    def dies(store, *arguments):
        kept(store, *arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Store, "save_progress", dies)
        with pytest.raises(KeyboardInterrupt):
            execute.execute(key, spec, context(tmp_path, "killed"))
    stores = []
    for name in ("undisturbed", "killed"):
        execute.execute(key, spec, context(tmp_path, name))
        stores.append(Store(str(tmp_path / name)).table("alignment", tables.ALIGNMENT).to_pylist())
    assert len(stores[0]) == 21
    assert stores[0] == stores[1]

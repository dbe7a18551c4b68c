"""Settings of the authors' code in sweeps: ties by features, and the start of the hash layer."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from gridfiles import base, written

import signsym_core as ss
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store
from orchestrator.work import execute, models
from signsym_core.retrieval import average_precision

DATA = {"name": "digits", "size": 8, "split": "20/5/rest", "classes": [0, 1, 2]}
TASK = {"name": "hashing", "bits": 12, "k": 50, "head_std": 0.01}


def plan(folder, ties, epochs=1):
    changes = {"task": TASK | {"ties": ties}, "dataset": DATA, "backbone": {"name": "smallcnn", "width": 2}}
    changes |= {"finetune": {"epochs": epochs}, "attacks": ["none"]}
    return compile_plan(load(written(folder, base(**changes))), set(), set())


def test_a_sweep_ranks_by_the_features_of_its_model_and_ties_are_no_part_of_its_training(tmp_path):
    where = JobContext(storage=str(tmp_path / "store"), data_root=str(tmp_path), git="", versions="{}")
    jobs = plan(tmp_path, "features").jobs
    for key, job in jobs.items():
        execute.execute(key, json.loads(json.dumps(dict(job.spec))), where)
    store = Store(where.storage)
    (value,) = store.results()["value"]
    model, record = models.rebuilt(store, next(iter(store.done_models())))
    source = ss.DATASETS.rebuild(record["spec"]["dataset"])
    data = source.load(Path())
    queries, database = (ss.encode(model, split, source) for split in (data.test, data.database))
    assert value == pytest.approx(float(average_precision(queries, database, 50, "features").mean()), abs=1e-9)
    assert plan(tmp_path, "stable").finetunes == plan(tmp_path, "features").finetunes


def test_the_hash_layer_starts_as_it_is_said(tmp_path):
    where = JobContext(storage=str(tmp_path / "store"), data_root=str(tmp_path), git="", versions="{}")
    key, job = next((k, j) for k, j in plan(tmp_path, "stable", epochs=0).jobs.items() if j.kind == "finetune")
    execute.execute(key, json.loads(json.dumps(dict(job.spec))), where)
    weight, bias = models.rebuilt(Store(where.storage), key)[0].head_parameters()
    assert float(weight.detach().std()) == pytest.approx(0.01, rel=0.3)
    assert not bias.any()

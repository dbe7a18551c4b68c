"""Settings of the authors' code in sweeps: ties by features, the start of the hash layer, the best epoch."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from gridfiles import base, written

import signsym_core as ss
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store
from orchestrator.work import execute, models
from signsym_core.retrieval.ranking import average_precision

DATA = {"name": "digits", "size": 8, "split": "20/5/rest", "classes": [0, 1, 2]}
TASK = {"name": "hashing", "bits": 12, "k": 50, "head_std": 0.01}


def plan(folder, ties, epochs=1):
    changes = {"task": TASK | {"ties": ties}, "dataset": DATA, "backbone": {"name": "smallcnn", "width": 2}}
    changes |= {"finetune": {"epochs": epochs}, "attacks": ["none"]}
    return compile_plan(load(written(folder, base(**changes))), set(), set())


@pytest.mark.slow
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


VALIDATED = {"name": "digits", "size": 8, "train_images": 40, "validation_images": 20, "test_images": 10}


def validated(folder, settings, dataset=VALIDATED, **more):
    changes = {"dataset": dataset | {"classes": [0, 1, 2]}, "backbone": {"name": "smallcnn", "width": 2}}
    changes |= {"attacks": ["none"], "finetune": {"batch_size": 16, "lr": 0.003, "head_lr": 0.01} | settings}
    return compile_plan(load(written(folder, base(**(changes | more)))), set(), set())


class Killed(Exception):
    """The worker is killed here."""


@pytest.mark.slow
def test_a_killed_fine_tune_goes_on_to_the_same_best_epoch_and_the_same_end(tmp_path, monkeypatch):
    curve = [0.25, 0.75, 0.5, 0.625, 1.0, 1.0]
    monkeypatch.setattr("signsym_core.training.finetune.validation_score", lambda *_, epoch, **__: curve[epoch])
    jobs = validated(tmp_path, {"epochs": 6, "keep": "best", "patience": 2}).jobs

    def run(storage, job):
        where = JobContext(storage=str(tmp_path / storage), data_root=str(tmp_path), git="", versions="{}")
        execute.execute(job.key, json.loads(json.dumps(dict(job.spec))), where)
        return Store(where.storage)

    (tune,) = [job for job in jobs.values() if job.kind == "finetune"]
    (clean,) = [job for job in jobs.values() if job.kind == "attack"]
    weights, record = run("undisturbed", tune).load_model(tune.key)
    assert record["kept_epoch"] == 2
    save, saved = Store.save_progress, []
    # After the first epoch, after one that is not the best, and after the one that training stops at.
    for survived in (1, 3, 4):

        def save_and_die(store, *arguments, survived=survived):
            save(store, *arguments)
            saved.append(arguments)
            if len(saved) == survived:
                raise Killed

        saved.clear()
        storage = f"killed {survived}"
        with monkeypatch.context() as patched:
            patched.setattr(Store, "save_progress", save_and_die)
            with pytest.raises(Killed):
                run(storage, tune)
        other, again = run(storage, tune).load_model(tune.key)
        assert weights.keys() == other.keys()
        assert all(torch.equal(tensor, other[name]) for name, tensor in weights.items())
        assert again["kept_epoch"] == 2
        assert [row["validation"] for row in again["history"] if "loss" in row] == curve[:4]
    assert run(storage, clean).results()["finetune_epoch"].tolist() == [2]


def test_a_result_says_which_epoch_it_is_of_where_the_last_one_is_kept(tmp_path):
    where = JobContext(storage=str(tmp_path / "store"), data_root=str(tmp_path), git="", versions="{}")
    for key, job in validated(tmp_path, {"epochs": 2}).jobs.items():
        execute.execute(key, json.loads(json.dumps(dict(job.spec))), where)
    assert Store(where.storage).results()["finetune_epoch"].tolist() == [2]


def test_validation_is_part_of_a_key_only_where_it_is_asked_for(tmp_path):
    whole = {name: value for name, value in VALIDATED.items() if name != "validation_images"}
    (plain,) = validated(tmp_path, {"epochs": 2}, whole).finetunes
    neutral = {"epochs": 2, "keep": "last", "patience": None, "min_delta": 0.0}
    assert validated(tmp_path, neutral, whole | {"validation_images": None}).finetunes == {plain}
    others = [validated(tmp_path, {"epochs": 2} | more).finetunes for more in ({}, {"keep": "best"}, {"patience": 1})]
    assert len({plain}.union(*others)) == 4

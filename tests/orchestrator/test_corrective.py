"""Fine-tunes that go on: a whole model of a training before, some steps of another rule, and none at all."""

from __future__ import annotations

import json

import pytest
import torch
from gridfiles import written
from sweeps import ROOT

from orchestrator.gridfile.grid import GridError, load
from orchestrator.jobs.job import JobContext
from orchestrator.jobs.setting import Setting
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store
from orchestrator.store.tables import OUTCOMES
from orchestrator.work import execute, models
from signsym_core.backbones.weights import WeightsError

DATA = {"name": "digits", "size": 8, "train_images": 60, "test_images": 30, "classes": [0, 1, 2]}
FIRST = {"dataset": DATA | {"classes": [3, 4, 5]}, "epochs": 1, "lr": 0.01, "head_lr": 0.01}
PARENT = {"epochs": 2, "batch_size": 16, "lr": 0.005, "head_lr": 0.01}
STEPS = {"batch_size": 16, "lr": 0.005, "head_lr": 0.005}


def grid(folder, rules, steps, parent=None, seeds=(1,)):
    """A BP row from a pre-trained body, and the same model going on for so many steps of each rule."""
    before = {"dataset": DATA, "head": "keep", "weights": {"pretrain": FIRST}, **PARENT, **(parent or {})}
    attacks = [{"name": "pgd", "steps": 3, "gradient": ["feedback", "exact"], "epsilon": [0.1]}]
    shared = {"task": "classification", "dataset": DATA, "backbone": {"name": "smallcnn", "width": 2}}
    going_on = [{"rule": rules, "weights": {"pretrain": before}, "finetune": STEPS | {"steps": n}} for n in steps]
    row = {"rule": (parent or {}).get("rule", "bp"), "weights": {"pretrain": FIRST}, "finetune": PARENT}
    plain = {
        "name": "c",
        "seeds": list(seeds),
        "defaults": shared | {"attacks": attacks},
        "experiments": [row, *going_on],
    }
    return load(written(folder, plain))


def done(folder, a_grid):
    """A store with every job of the grid, done in this process."""
    context = JobContext(storage=str(folder / "store"), data_root=str(folder), git="", versions="{}")
    plan = compile_plan(a_grid, set(), set())
    for key, job in plan.jobs.items():
        execute.execute(key, json.loads(json.dumps(dict(job.spec))), context)
    return plan, Store(context.storage)


def rows(store, **query):
    """Robust or not, image by image, of the cells with these values."""
    table = store.results()
    for name, value in query.items():
        table = table[table[name] == value]
    outcomes = {}
    for part in store.iter_tables("outcomes", OUTCOMES):
        for row in part.to_pylist():
            outcomes.setdefault(row["cell"], []).append((row["image"], row["robust"], row["linf"]))
    return {(r.rule, r.attack, r.gradient, r.epsilon): sorted(outcomes[r.cell]) for r in table.itertuples()}


@pytest.mark.slow
def test_no_step_is_the_parent_exactly_and_steps_are_not(tmp_path):
    plan, store = done(tmp_path, grid(tmp_path, ["bp", "frsf"], [0, 7]))
    tunes = [job for job in plan.jobs.values() if job.kind == "finetune"]
    # The row that is attacked is the one parent of all four.
    (parent,) = [job for job in tunes if "head" not in job.spec["weights"]]
    assert len(tunes) == 5
    assert {job.parents for job in tunes if job is not parent} == {(parent.key,)}
    results = store.results()
    steps = {job.key: job.spec["finetune"].get("steps") for job in tunes}
    of_parent = rows(store, finetune_job=parent.key)
    for job in tunes:
        cells = rows(store, finetune_job=job.key)
        of_rule = {
            key[1:]: value for key, value in cells.items() if key[2] != "feedback" or job.spec["rule"]["name"] == "bp"
        }
        same = all(value == of_parent["bp", *key] for key, value in of_rule.items())
        assert same == (steps[job.key] in (None, 0))
    assert set(results["finetune_job"]) == set(steps)


@pytest.mark.slow
def test_a_rule_goes_on_with_its_own_feedback_and_another_one_starts_with_the_weights_alone(tmp_path):
    plan, store = done(tmp_path, grid(tmp_path, ["brsf", "usf"], [0], parent={"rule": "brsf"}))
    tunes = {
        (job.spec["rule"]["name"], "head" in job.spec["weights"]): key
        for key, job in plan.jobs.items()
        if job.kind == "finetune"
    }
    parent, brsf, usf = (
        models.rebuilt(store, tunes[name])[0] for name in (("brsf", False), ("brsf", True), ("usf", True))
    )
    same = {name: torch.equal(tensor, brsf.state_dict()[name]) for name, tensor in parent.state_dict().items()}
    assert all(same.values())
    weights = {name: tensor for name, tensor in parent.named_parameters()}
    assert all(torch.equal(tensor, weights[name]) for name, tensor in usf.named_parameters())
    # Everything of the parent's row, its own feedback too.
    assert rows(store, finetune_job=tunes["brsf", False]) == rows(store, finetune_job=tunes["brsf", True])


def test_a_parent_per_seed_unless_its_seed_is_named(tmp_path):
    for parent, expected in (({}, [0, 1]), ({"seed": 7}, [0, 1, 7])):
        plan = compile_plan(grid(tmp_path, ["usf"], [3], parent, seeds=(0, 1)), set(), set())
        tunes = [job for job in plan.jobs.values() if job.kind == "finetune" and "head" not in job.spec["weights"]]
        assert sorted(job.spec["seed"] for job in tunes) == expected
        # Models that differ in their seed alone, and so in their parent, are one model of several seeds in results.
        models = [
            Setting.of(job.spec).columns() for job in plan.jobs.values() if "head" in (job.spec.get("weights") or {})
        ]
        assert len(models) == 2
        assert models[0] == models[1]
    keys = list(plan.jobs)
    assert all(keys.index(parent) < keys.index(job.key) for job in plan.jobs.values() for parent in job.parents)


def test_a_head_of_the_classes_in_another_order_does_not_go_on(tmp_path, monkeypatch):
    plan = compile_plan(grid(tmp_path, ["usf"], [3]), set(), set())
    (job,) = [job for job in plan.jobs.values() if job.kind == "finetune" and "head" in job.spec["weights"]]
    context = JobContext(storage=str(tmp_path / "store"), data_root=str(tmp_path), git="", versions="{}")
    # Of files of one's own the order of classes is known when they are read.
    parent = {"spec": {"rule": job.spec["rule"]}, "classes": ["0", "2", "1"]}
    monkeypatch.setattr(Store, "load_model", lambda store, key: ({}, parent))
    with pytest.raises(WeightsError, match=r"number 1 is '1', got '2'\. Give the pretrain's data set the same"):
        execute.execute(job.key, json.loads(json.dumps(dict(job.spec))), context)
    assert not Store(context.storage).names("models", ".json")


def test_what_was_trained_is_written_as_a_grid_has_it(tmp_path):
    a_grid = grid(tmp_path, ["usf"], [3], {"rule": {"name": "frsf", "scale": "xavier"}, "seed": 4})
    plan = compile_plan(a_grid, set(), set())
    (job,) = [job for job in plan.jobs.values() if job.kind == "finetune" and "head" in job.spec["weights"]]
    for resolved in (True, False):
        experiment = Setting.of(job.spec).experiment(lambda key: plan.jobs[key].spec, resolved=resolved)
        again = {"name": "c", "seeds": [job.spec["seed"]], "experiments": [json.loads(json.dumps(experiment))]}
        assert job.key in compile_plan(load(written(tmp_path, again)), set(), set()).finetunes


def test_a_body_of_another_rule_is_another_job_and_a_bp_body_is_the_one_it_was(tmp_path):
    def jobs(first):
        row = {
            "task": "classification",
            "dataset": DATA,
            "backbone": "smallcnn",
            "rule": "usf",
            "weights": {"pretrain": first},
        }
        return set(
            compile_plan(load(written(tmp_path, {"name": "c", "seeds": [0], "experiments": [row]})), set(), set()).jobs
        )

    assert jobs(FIRST) == jobs(FIRST | {"rule": "bp", "head": "fresh", "weights": None, "seed": 0})
    assert not jobs(FIRST) & jobs(FIRST | {"rule": "usf"})
    with pytest.raises(GridError, match="unknown rule: 'uzf'"):
        jobs(FIRST | {"rule": "uzf"})
    with pytest.raises(GridError, match="unknown head: 'kep', did you mean 'keep'"):
        jobs(FIRST | {"head": "kep"})


def test_a_loss_with_parameters_of_its_own_does_not_go_on(tmp_path):
    plain = {"task": "hashing", "dataset": DATA, "backbone": "smallcnn", "rule": "usf"}
    plain |= {"weights": {"pretrain": FIRST | {"head": "keep"}}}
    with pytest.raises(GridError, match="head: fresh for task 'hashing', whose loss has parameters"):
        load(written(tmp_path, {"name": "c", "seeds": [0], "experiments": [plain]}))


def test_the_shipped_grid_has_one_parent_for_each_seed_and_every_number_of_steps():
    plan = compile_plan(load(ROOT / "grids/corrective.yaml"), set(), set())
    tunes = [job for job in plan.jobs.values() if job.kind == "finetune"]
    steps = [job.spec["finetune"].get("steps") for job in tunes]
    assert {number: steps.count(number) for number in set(steps)} == {None: 3} | dict.fromkeys(
        (0, 10, 30, 100, 300), 15
    )
    assert len({job.parents for job in tunes if job.spec["finetune"].get("steps") is not None}) == 3

"""Adversarial trainings in grids: keys, titles, columns, and a job that does one."""

from __future__ import annotations

import json

import pytest
import yaml
from gridfiles import base, written

import signsym_core as ss
from orchestrator.gridfile.grid import load
from orchestrator.jobs import keys
from orchestrator.jobs.job import JobContext
from orchestrator.jobs.setting import Setting
from orchestrator.pages.provenance import settings
from orchestrator.plan.compile import compile_full, compile_plan
from orchestrator.results import labels
from orchestrator.results.rerun import one_cell
from orchestrator.store import Store
from orchestrator.work import execute

DATA = {"name": "digits", "size": 8, "train_images": 40, "test_images": 20, "classes": [0, 1, 2]}
NETWORK = {"name": "smallcnn", "width": 2}
PGD = {"name": "pgd", "epsilon": "8/255", "steps": 3}


def grid(folder, adversarial, **more):
    finetune = {"epochs": 1, "batch_size": 16, "lr": 0.01, "head_lr": 0.01, "adversarial": adversarial}
    attacks = [{"name": "fgsm", "gradient": "exact", "epsilon": [0.1]}]
    return load(written(folder, base(dataset=DATA, backbone=NETWORK, finetune=finetune, attacks=attacks, **more)))


def finetunes(jobs):
    return [job for job in jobs.values() if job.kind == "finetune"]


def test_null_is_the_training_as_it_was_and_equal_attacks_are_one_key(tmp_path):
    known = {}
    for name, value in {
        "null": None,
        "fraction": PGD,
        "number": PGD | {"epsilon": 8 / 255, "gradient": "exact", "random_start": True},
        "feedback": PGD | {"gradient": "feedback"},
    }.items():
        (job,) = finetunes(compile_plan(grid(tmp_path, value), set(), set()).jobs)
        known[name] = job.key
    without = base(
        dataset=DATA, backbone=NETWORK, finetune={"epochs": 1, "batch_size": 16, "lr": 0.01, "head_lr": 0.01}
    )
    (job,) = finetunes(compile_plan(load(written(tmp_path, without)), set(), set()).jobs)
    assert known["null"] == job.key
    assert "adversarial" not in job.spec["finetune"]
    assert known["fraction"] == known["number"]
    assert len(set(known.values())) == 3


def test_a_training_against_an_attack_whose_numbers_moved_is_another(tmp_path, monkeypatch):
    def key(adversarial):
        return finetunes(compile_plan(grid(tmp_path, adversarial), set(), set()).jobs)[0].key

    square = {"name": "square", "epsilon": 0.1, "queries": 5}
    ensemble = {"name": "autoattack", "epsilon": 0.1, "gradient": "exact"}
    against = (PGD, square, ensemble, None)
    before = [key(adversarial) for adversarial in against]
    for name, same in (("pgd", [False, True, True, True]), ("square", [True, False, False, True])):
        with monkeypatch.context() as patch:
            patch.setitem(keys.RAISED, name, 1)
            found = [key(adversarial) for adversarial in against]
        assert [one == other for one, other in zip(found, before, strict=True)] == same
    # Boundary's numbers moved before any training could depend on them.
    assert keys.training_semantics("finetune", ss.ATTACKS.build("boundary")) == keys.SEMANTICS["finetune"]


@pytest.mark.parametrize("member", ["apgd", "fab", "square"])
def test_the_version_of_an_ensemble_follows_those_of_its_members(monkeypatch, member):
    """By the names of what it runs, which no list repeats."""
    ensemble, other = ss.ATTACKS.build("autoattack"), ss.ATTACKS.build("pgd")
    before = keys.attack_semantics(ensemble)
    assert before == keys.SEMANTICS["attack"]
    monkeypatch.setitem(keys.RAISED, member, 2)
    assert keys.attack_semantics(ensemble) == before + 2
    assert keys.attack_semantics(other) == before
    monkeypatch.setitem(keys.RAISED, "autoattack", 1)
    assert keys.attack_semantics(ensemble) == before + 3


def test_a_cell_is_written_as_a_grid_that_has_its_key(tmp_path):
    jobs = compile_full(grid(tmp_path, PGD | {"gradient": "feedback"}, rule="usf")).jobs
    cells = compile_full(grid(tmp_path, PGD | {"gradient": "feedback"}, rule="usf")).cells
    again = one_cell(jobs, next(iter(cells)))
    assert "adversarial: {name: pgd, gradient: feedback" in again.replace("\n", " ")
    assert next(iter(cells)) in compile_full(load(written(tmp_path, yaml.safe_load(again)))).cells


def test_titles_and_labels_say_which_training_it_is(tmp_path):
    text = f"""
        name: titles
        seeds: [0]
        defaults: {{task: classification, dataset: {json.dumps(DATA)}, backbone: {json.dumps(NETWORK)}, rule: usf}}
        experiments:
          - finetune: {{epochs: 1}}
          - finetune: {{epochs: 1, adversarial: {json.dumps(PGD)}}}
          - finetune: {{epochs: 1, adversarial: {json.dumps(PGD | {"gradient": "feedback"})}}}
    """
    jobs = finetunes(compile_full(load(written(tmp_path, text))).jobs)
    start = "finetune usf smallcnn digits seed 0"
    assert jobs[0].title == start
    for job, gradient in zip(jobs[1:], ("exact", "feedback"), strict=True):
        assert job.title == f"{start} (adversarial pgd, gradient {gradient})"
    columns = [Setting.of(job.spec).columns()["finetune"] for job in jobs]
    varied = labels._varied(columns)
    short = [labels._short(column, varied) for column in columns]
    assert short[0] == "default adversarial"
    assert short[1] == "adversarial=pgd(epsilon=8/255, gradient=exact, random_start=True, steps=3)"
    assert len(set(short)) == 3
    assert labels._short('{"adversarial":{"epsilon":0.2,"name":"bim"}}', varied) == "adversarial=bim(epsilon=0.2)"
    assert "adversarial=pgd(epsilon=0.03137254901960784, gradient=exact" in settings(columns[1])


def test_a_job_trains_against_the_attack_also_in_half_the_memory(tmp_path):
    """Out of memory once: half the images at once, and the same model up to rounding."""
    plan = compile_plan(grid(tmp_path, PGD | {"gradient": "feedback", "epsilon": 0.3}, rule="brsf"), set(), set())
    (job,) = finetunes(plan.jobs)
    spec, losses = json.loads(json.dumps(dict(job.spec))), []
    for halvings in (0, 1):
        storage = tmp_path / f"store{halvings}"
        context = JobContext(storage=str(storage), data_root="", git="", versions="{}", halvings=halvings)
        execute.execute(job.key, spec, context)
        _, record = Store(str(storage)).load_model(job.key)
        assert record["spec"]["finetune"]["adversarial"]["gradient"] == "feedback"
        assert record["micro_batch"] == (8 if halvings else None)
        losses.append(record["history"][-1]["loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    context = JobContext(storage=str(tmp_path / "plain"), data_root="", git="", versions="{}")
    del spec["finetune"]["adversarial"]
    execute.execute(job.key, spec, context)
    assert Store(context.storage).load_model(job.key)[1]["history"][-1]["loss"] < losses[0]

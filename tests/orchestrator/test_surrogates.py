"""Surrogates of transfer attacks: from the grid file through the plan and its jobs to the tables of results."""

from __future__ import annotations

import json

import pandas as pd
import pytest
import torch
from gridfiles import base, written

import signsym_core as ss
from orchestrator.gridfile.grid import GridError, load
from orchestrator.jobs.job import JobContext
from orchestrator.jobs.surrogates import attacks_itself, source_name
from orchestrator.plan.compile import compile_plan
from orchestrator.results.line import GRID_KEY
from orchestrator.results.planned_cells import _cells
from orchestrator.results.rerun import one_cell
from orchestrator.store import Store
from orchestrator.work import execute, models
from orchestrator.work.data import data_set

DATA = {"name": "digits", "size": 8, "train_images": 300, "test_images": 40}
MODEL = {"dataset": DATA, "backbone": {"name": "smallcnn", "width": 4}, "rule": ["bp", "usf"]}
MODEL |= {"finetune": {"epochs": 4, "lr": 0.01, "head_lr": 0.01}}
#: Epsilon 0 shows the examples of every surrogate to be the images themselves.
PGD = {"name": "pgd", "steps": 4, "random_start": False, "epsilon": [0, 0.15], "images": 30}
EACH = PGD | {"gradient": "transfer", "surrogate": {"rule": ["bp", "usf"], "seed": ["same", "other"]}}


def plan(folder, *attacks, seeds=(0, 1), **changes):
    """The plan of a grid with these attacks against an empty store."""
    text = base(**MODEL | {"attacks": [*attacks]} | changes) | {"seeds": [*seeds]}
    return compile_plan(load(written(folder, text)), set(), set())


def attacking(made, rule, seed):
    """The attack jobs on a model by its rule and seed, without the clean one: title's beginning and job."""
    jobs = [job for job in made.jobs.values() if job.kind == "attack" and job.spec["attack"]["name"] != "none"]
    models = [(made.jobs[job.parents[0]].spec, job) for job in jobs]
    found = [job for model, job in models if (model["rule"]["name"], model["seed"]) == (rule, seed)]
    return {job.title.rpartition(": ")[0]: job for job in found}


def surrogates(made, jobs):
    """Rule and seed of each job's surrogate, by the job's title; None where the model itself is attacked."""
    found = {}
    for title, job in jobs.items():
        spec = made.jobs[job.spec["surrogate"]].spec if "surrogate" in job.spec else None
        found[title] = spec and (spec["rule"]["name"], spec["seed"])
    return found


def test_a_surrogate_is_another_model_of_the_grid_or_the_attacked_one(tmp_path):
    made = plan(tmp_path, EACH)
    # Two rules and two seeds: no model is trained beside them.
    assert sorted(job.kind for job in made.jobs.values()) == ["attack"] * (4 + 16) + ["finetune"] * 4
    assert surrogates(made, attacking(made, "usf", 1)) == {
        "attack pgd transfer": ("bp", 1),
        "attack pgd transfer from bp (other seed)": ("bp", 0),
        "attack pgd exact": None,
        "attack pgd transfer from usf (other seed)": ("usf", 0),
    }
    assert surrogates(made, attacking(made, "bp", 0)) == {
        "attack pgd exact": None,
        "attack pgd transfer from bp (other seed)": ("bp", 1),
        "attack pgd transfer from usf": ("usf", 0),
        "attack pgd transfer from usf (other seed)": ("usf", 1),
    }


def test_a_surrogate_that_the_grid_does_not_train_is_added(tmp_path):
    made = plan(tmp_path, PGD | {"gradient": "transfer", "surrogate": {"rule": "frsf", "seed": "other"}}, rule=["usf"])
    trained = [(j.spec["rule"]["name"], j.spec["seed"]) for j in made.jobs.values() if j.kind == "finetune"]
    assert sorted(trained) == [("frsf", 0), ("frsf", 1), ("usf", 0), ("usf", 1)]
    assert made.finetunes == {key for key, job in made.jobs.items() if job.kind == "finetune"}


def test_a_surrogate_that_is_the_model_itself_shares_the_job_of_the_exact_gradient(tmp_path):
    own = PGD | {"gradient": "transfer", "surrogate": {"rule": "usf"}}
    made = plan(tmp_path, PGD | {"gradient": ["exact", "transfer"]}, own, rule=["usf"], seeds=[0])
    jobs = attacking(made, "usf", 0)
    assert surrogates(made, jobs) == {"attack pgd exact": None, "attack pgd transfer": ("bp", 0)}
    gradients = [gradient for gradient, _, _ in jobs["attack pgd exact"].spec["points"]]
    assert gradients == ["exact", "exact", "transfer from usf", "transfer from usf"]


def test_bp_of_the_same_seed_is_the_usual_surrogate_and_moves_no_key(tmp_path):
    usual = plan(tmp_path, PGD | {"gradient": "transfer"})
    named = plan(tmp_path, PGD | {"gradient": "transfer", "surrogate": {"rule": "bp", "seed": "same"}})
    assert named.cells == usual.cells
    assert [*named.jobs] == [*usual.jobs]


def test_another_seed_stays_the_same_one_where_larger_seeds_are_added(tmp_path):
    attack = PGD | {"gradient": "transfer", "surrogate": {"rule": "usf", "seed": "other"}}
    two, three = (plan(tmp_path, attack, rule=["usf"], seeds=seeds) for seeds in ([0, 1], [2, 1, 0]))
    pairs = [surrogates(three, attacking(three, "usf", seed)).popitem()[1][1] for seed in (0, 1, 2)]
    assert pairs == [1, 0, 1]
    assert two.cells < three.cells


def test_rules_with_other_parameters_are_other_surrogates(tmp_path):
    scaled = {"name": "usf", "scale": "xavier"}
    made = plan(
        tmp_path, PGD | {"gradient": "transfer", "surrogate": {"rule": ["usf", scaled]}}, rule=["usf"], seeds=[0]
    )
    assert surrogates(made, attacking(made, "usf", 0)) == {
        "attack pgd exact": None,
        'attack pgd transfer from usf {"scale":"xavier"}': ("usf", 0),
    }
    assert attacks_itself('transfer from usf {"scale":"xavier"}', "usf", '{"scale":"xavier"}')
    assert not attacks_itself('transfer from usf {"scale":"xavier"}', "usf", "{}")
    assert not attacks_itself(source_name("usf", {}, other_seed=True), "usf", "{}")
    assert attacks_itself(source_name("bp", {}, other_seed=False), "bp", "{}")
    assert not attacks_itself("exact", "bp", "{}")


def test_a_surrogate_has_to_fit_what_it_is_trained_with(tmp_path):
    pretended = PGD | {"gradient": "transfer", "surrogate": {"rule": "lra"}}
    with pytest.raises(GridError, match=r"attacks\.0\.name: surrogate: expected a backbone that rule 'lra' trains"):
        plan(tmp_path, pretended)


def test_each_cell_is_planned_on_a_line_of_its_own_and_has_a_grid_that_runs_it_alone(tmp_path):
    made = plan(tmp_path, EACH)
    jobs = {**made.jobs}
    planned = {(cells.line, cells.seed): cells for cells in _cells("each", jobs)}
    assert len(planned) == 4 * (1 + 4)
    for cells in planned.values():
        for cell, _, _ in cells.cells:
            text = one_cell(jobs, cell)
            again = tmp_path / "again.yaml"
            again.write_text(text)
            # Every grid has the clean cell.
            alone = compile_plan(load(again), set(), set()).cells
            assert cell in alone, text
            assert len(alone) == 1 + (cells.line[GRID_KEY.index("attack")] != "none")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """A store after every job of the grid, and its context."""
    folder = tmp_path_factory.mktemp("surrogates")
    context = JobContext(storage=str(folder / "store"), data_root=str(folder), git="", versions="{}")
    for key, job in plan(folder, EACH, PGD | {"gradient": "exact"}).jobs.items():
        execute.execute(key, dict(job.spec), context)
    return Store(context.storage), context


def test_results_say_which_surrogate_each_is_from(done):
    results = done[0].results().query("attack == 'pgd'")
    columns = ["gradient", "surrogate_rule", "surrogate_rule_params", "surrogate_seed"]
    assert {tuple(row) for row in results[columns].fillna("").itertuples(index=False)} == {
        ("exact", "", "", ""),
        ("transfer", "bp", "{}", "same"),
        ("transfer from bp (other seed)", "bp", "{}", "other"),
        ("transfer from usf", "usf", "{}", "same"),
        ("transfer from usf (other seed)", "usf", "{}", "other"),
    }
    own = results["gradient"].eq("exact") | (
        results["surrogate_seed"].eq("same") & results["surrogate_rule"].eq(results["rule"])
    )
    assert results["surrogate_job"].isna().equals(own)


def test_outcomes_are_those_of_examples_made_on_the_one_model_and_shown_to_the_other(done):
    """Every model against every other: a written-out loop, image by image."""
    store, context = done
    results, outcomes = store.results().query("attack == 'pgd'"), store.outcomes().set_index("cell")
    described = {"name": "digits", "parameters": {name: value for name, value in DATA.items() if name != "name"}}
    _, data = data_set(json.dumps(described), context.data_root, context.storage)
    images, labels = data.test.images[:30].float() / 255, data.test.labels[:30]
    robust = {}
    for row in results.itertuples():
        attacked, _ = models.loaded(store, row.finetune_job)
        made_on, _ = models.loaded(store, row.finetune_job if pd.isna(row.surrogate_job) else row.surrogate_job)
        examples = images.clone()
        for _ in range(4 if row.epsilon else 0):
            moved = examples.clone().requires_grad_()
            with ss.exact_gradient(made_on):
                loss = torch.nn.functional.cross_entropy(made_on(moved), labels, reduction="sum")
            (slope,) = torch.autograd.grad(loss, moved)
            examples = examples + row.step_size * slope.sign()
            examples = images + (examples - images).clamp(-row.epsilon, row.epsilon)
            examples = examples.clamp(0, 1)
        expected = attacked(examples).argmax(1) == labels
        found = outcomes.loc[row.cell].set_index("image").loc[data.test.indices[:30].tolist()]["robust"]
        assert found.tolist() == expected.tolist(), row.gradient
        robust.setdefault((row.finetune_job, row.epsilon), set()).add(tuple(found))
    # The surrogate matters: of the same model other images are left, but for the exact gradient and its own surrogate.
    assert {epsilon: {len(kinds) for (_, at), kinds in robust.items() if at == epsilon} for epsilon in (0, 0.15)} == {
        0: {1},
        0.15: {4},
    }


def test_the_diagonal_is_the_attack_along_the_exact_gradient(done):
    results = done[0].results().query("attack == 'pgd'")
    exact, own = (
        results.query("gradient == 'exact'"),
        results.query("surrogate_rule == rule and surrogate_seed == 'same'"),
    )
    cell = ["rule", "seed", "epsilon"]
    assert len(own) == len(exact) == 8
    assert own.set_index(cell)["value"].sort_index().equals(exact.set_index(cell)["value"].sort_index())
    assert set(own["job"]) == set(exact["job"])

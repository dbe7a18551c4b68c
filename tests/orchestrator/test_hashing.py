"""Hashing through the plan and through jobs, run in this process one after the other as a worker runs them."""

from __future__ import annotations

import pytest
import torch

import signsym_core as ss
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store
from orchestrator.work import execute
from signsym_core.datasets import inputs

pytestmark = pytest.mark.slow

TEXT = """
name: codes
seeds: [0]
experiments:
  - task: {task}
    dataset: {{name: digits, size: 8, split: 20/10/rest}}
    backbone: {{name: smallcnn, width: 8}}
    weights: {{pretrain: {{dataset: {{name: digits, size: 8}}, epochs: 4, lr: 0.002, head_lr: 0.002}}}}
    rule: [bp, usf]
    finetune: {{epochs: 8, lr: 0.001, head_lr: 0.002}}
    attacks:
      - {{name: [hag, sdha], gradient: [feedback, exact, transfer], epsilon: [0.05, 0.2], images: 60}}
"""


def planned(path, task="{name: hashing, k: 500}", **changes):
    text = TEXT.format(task=task)
    for old, new in changes.items():
        assert old in text
        text = text.replace(old, new)
    (path / "grid.yaml").write_text(text)
    return compile_plan(load(path / "grid.yaml"), set(), set())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The store of the whole grid, and its plan."""
    folder = tmp_path_factory.mktemp("codes")
    plan = planned(folder)
    context = JobContext(storage=str(folder / "store"), data_root=str(folder), git="", versions="{}")
    for key, job in plan.jobs.items():
        execute.execute(key, dict(job.spec), context)
    return Store(str(folder / "store")), plan


def test_every_cell_has_a_result_with_its_score_and_its_surrogate(done):
    store, plan = done
    results = store.results()
    assert set(results["cell"]) == plan.cells
    assert results["metric"].eq("map").all()
    assert results["task_params"].eq('{"k":500}').all()
    twin = results.query("rule == 'bp'")["finetune_job"].unique()
    transferred = results.query("rule == 'usf' and gradient == 'transfer'")
    assert list(transferred["surrogate_job"].unique()) == list(twin)
    assert results.query("gradient != 'transfer'")["surrogate_job"].isna().all()


def test_the_score_is_that_of_codes_computed_from_the_stored_model(done):
    store, _ = done
    row = store.results().query("rule == 'usf' and attack == 'none'").iloc[0]
    tensors, record = store.load_model(row["finetune_job"])
    model = ss.convert(ss.BACKBONES.build("smallcnn", width=8).build(32, channels=1), "usf")
    model.load_state_dict(tensors)
    source = ss.DATASETS.build("digits", size=8, split="20/10/rest")
    data = source.load(None)
    with torch.no_grad():
        outputs = {name: model.eval()(inputs(getattr(data, name).images, source)) for name in ("test", "database")}
    codes = {name: torch.where(found >= 0, 1.0, -1.0) for name, found in outputs.items()}
    sides = (codes["test"], data.test.labels, codes["database"], data.database.labels)
    wanted = ss.mean_average_precision(*sides, 500)
    assert row["value"] == pytest.approx(wanted, abs=1e-12)
    assert row["n"] == len(data.test) == 100
    assert record["spec"]["task"]["parameters"].keys().isdisjoint({"k", "ties"})
    outcomes = store.outcomes().query("cell == @row.cell")
    assert outcomes["robust"].isna().all()
    assert outcomes["ap"].mean() == pytest.approx(wanted, abs=1e-6)


def test_attacks_lower_map_and_the_exact_gradient_lowers_it_more(done):
    table = (
        done[0]
        .results()
        .query("rule == 'usf'")
        .pivot_table(index=["attack", "gradient"], columns="epsilon", values="value")
    )
    clean = table.loc[("none", "none"), 0.0]
    for attack in ("hag", "sdha"):
        assert table.loc[(attack, "exact"), 0.2] < clean - 0.3
        assert table.loc[(attack, "exact"), 0.2] < table.loc[(attack, "feedback"), 0.2]


def test_examples_name_the_class_of_the_nearest_image(done):
    store, _ = done
    from orchestrator.store import tables

    examples = store.table("examples", tables.EXAMPLES).to_pandas()
    names = {str(digit) for digit in range(10)}
    assert set(examples["label"]) <= names
    assert set(examples["predicted"]) <= names


def test_what_only_decides_the_score_shares_the_fine_tunes(tmp_path):
    tasks = ["{name: hashing, k: 500, ties: stable}", "{name: hashing, k: 90}"]
    plans = [planned(tmp_path, task) for task in tasks]
    assert plans[0].finetunes == plans[1].finetunes
    assert plans[0].cells.isdisjoint(plans[1].cells)
    assert planned(tmp_path, "{name: hashing, bits: 16}").finetunes.isdisjoint(plans[0].finetunes)


def test_pre_training_is_one_for_both_tasks(tmp_path):
    hashing = planned(tmp_path)
    other = planned(tmp_path, "classification", **{"[hag, sdha]": "[fgsm, pgd]"})
    kinds = [{key for key, job in plan.jobs.items() if job.kind == "pretrain"} for plan in (hashing, other)]
    assert kinds[0] == kinds[1] != set()


def test_a_transfer_waits_for_the_twin_which_the_plan_adds_by_itself(tmp_path):
    plan = planned(tmp_path, **{"[bp, usf]": "[usf]", "[feedback, exact, transfer]": "[transfer]"})
    models = {key: job.spec["rule"]["name"] for key, job in plan.jobs.items() if job.kind == "finetune"}
    assert sorted(models.values()) == ["bp", "usf"]
    assert plan.finetunes == set(models)
    for job in plan.jobs.values():
        if job.kind == "attack":
            rules = [models[parent] for parent in job.parents]
            assert rules == (["usf", "bp"] if job.spec["gradient"] == "transfer" else ["usf"])
    # Without a cell that needs it there is no twin.
    assert len(planned(tmp_path, **{"[bp, usf]": "[usf]", "[feedback, exact, transfer]": "[exact]"}).finetunes) == 1


def test_a_transfer_to_bp_itself_is_the_exact_attack(done):
    bp = (
        done[0]
        .results()
        .query("rule == 'bp' and attack == 'hag'")
        .pivot(index="gradient", columns="epsilon", values="value")
    )
    assert bp.loc["transfer"].equals(bp.loc["exact"])


def test_the_images_of_every_data_set_are_in_the_store(done):
    store, _ = done
    # The digits that the backbone learned from, and the split of the task.
    assert len(store.names("splits", ".parquet")) == 2

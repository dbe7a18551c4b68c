"""Attacks of Foolbox from a grid to stored rows: names, keys, norms, distances, and errors with their line."""

from __future__ import annotations

import json
import math

import foolbox
import pytest

from orchestrator.gridfile.grid import load
from orchestrator.gridfile.nodes import GridError
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.results import members, rerun
from orchestrator.store import Store
from orchestrator.work import execute

pytestmark = pytest.mark.slow

TEXT = """
name: library
seeds: [0]
experiments:
  - task: classification
    dataset: {name: digits, size: 8}
    backbone: {name: smallcnn, width: 8}
    weights: {pretrain: {dataset: {name: digits, size: 8}, epochs: 2, lr: 0.002, head_lr: 0.002}}
    rule: [bp, frsf]
    finetune: {epochs: 2, lr: 0.001, head_lr: 0.002}
    attacks:
      - {name: "foolbox:LinfDeepFoolAttack", steps: 10, gradient: [feedback, exact, transfer], epsilon: [0.02, 0.1]}
      - {name: "foolbox:SaltAndPepperNoiseAttack", steps: 30, epsilon: [1, 3]}
"""


def plan_of(text, folder):
    (folder / "grid.yaml").write_text(text.replace("epsilon:", "images: 16, epsilon:"))
    return compile_plan(load(folder / "grid.yaml"), set(), set())


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The results, the outcomes and the plan of the whole grid."""
    folder = tmp_path_factory.mktemp("library")
    plan = plan_of(TEXT, folder)
    context = JobContext(storage=str(folder / "store"), data_root=str(folder), git="", versions="{}")
    for key, job in plan.jobs.items():
        execute.execute(key, dict(job.spec), context)
    store = Store(str(folder / "store"))
    return store.results(), store.outcomes(), plan


def test_every_cell_has_a_result_under_foolboxs_name_and_version(done):
    results, _, plan = done
    assert set(results["cell"]) == plan.cells
    attacked = results[results["attack"] != "none"]
    assert attacked["attack"].isin(["foolbox:LinfDeepFoolAttack", "foolbox:SaltAndPepperNoiseAttack"]).all()
    versions = attacked["attack_params"].map(json.loads).map(lambda parameters: parameters["version"])
    assert versions.eq(foolbox.__version__).all()
    assert attacked["norm"].eq(attacked["attack"].map(lambda name: "linf" if "Linf" in name else "l2")).all()
    assert attacked["queries"].gt(0).all()
    assert all(members.knows("attack", name) for name in attacked["attack"])


def test_distances_agree_with_the_outcomes_and_a_transfer_has_none(done):
    results, outcomes, _ = done
    for row in results[results["attack"] != "none"].itertuples():
        images = outcomes[outcomes["cell"] == row.cell]
        assert row.value == images["robust"].mean()
        if row.gradient == "transfer" and row.rule == "frsf":
            assert images["distance"].isna().all()
            continue
        assert images["distance"].notna().all()
        assert row.failed_starts == (images["distance"] == math.inf).sum()
        assert not images["robust"][images["distance"] <= row.epsilon].any()


def test_exact_breaks_more_than_feedback_under_a_rule_and_both_are_one_under_bp(done):
    results, outcomes, _ = done
    deepfool = results[results["attack"].str.contains("DeepFool")].merge(
        outcomes, on="cell", suffixes=("", "_of_image")
    )
    distances = deepfool.drop_duplicates(["rule", "gradient", "image"]).pivot_table(
        index=["rule", "image"], columns="gradient", values="distance", aggfunc="first"
    )
    assert distances.loc["bp", "feedback"].equals(distances.loc["bp", "exact"].rename("feedback"))
    assert distances.loc["frsf", "feedback"].mean() > distances.loc["frsf", "exact"].mean()


def test_a_stored_cell_can_be_written_as_a_grid_again(done, tmp_path):
    results, _, plan = done
    row = results[results["attack"].str.contains("DeepFool") & (results["rule"] == "frsf")].iloc[0]
    (tmp_path / "again.yaml").write_text(rerun.one_cell(plan.jobs, row["cell"]))
    assert row["cell"] in compile_plan(load(tmp_path / "again.yaml"), set(), set()).cells


def test_the_key_has_every_parameter_of_foolboxs_signature_and_the_version(tmp_path, monkeypatch):
    plan = plan_of(TEXT, tmp_path)
    spec = next(job.spec["attack"] for job in plan.jobs.values() if "DeepFool" in str(job.spec.get("attack")))
    expected = {"steps": 10, "candidates": 10, "overshoot": 0.02, "loss": "logits", "version": foolbox.__version__}
    assert spec == {"name": "foolbox:LinfDeepFoolAttack", "parameters": expected}
    written = TEXT.replace("steps: 10,", f"steps: 10, overshoot: 0.02, candidates: 10, version: {foolbox.__version__},")
    assert plan_of(written, tmp_path).jobs.keys() == plan.jobs.keys()
    assert plan_of(TEXT.replace("steps: 10", "steps: 11"), tmp_path).jobs.keys() != plan.jobs.keys()


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("foolbox:LinfDeepFool", "did you mean 'foolbox:LinfDeepFoolAttack'"),
        ("foolbox:L1PGD", "L0 or L1"),
        ("foolbox:GenAttack", "a class to aim at"),
        ("pgd, stepps: 3", "unknown key of attack 'pgd': 'stepps'"),
        ("foolbox:PGD, stepps: 3", "did you mean 'steps'"),
        ("foolbox:VirtualAdversarialAttack", "'steps' expects a value"),
        ("foolbox:PGD, version: 1.0.0", "that of the installed Foolbox"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_line(name, message, tmp_path):
    key, *rest = name.split(", ", 1)
    text = TEXT.replace('"foolbox:LinfDeepFoolAttack", steps: 10', ", ".join([f'"{key}"', *rest]))
    with pytest.raises(GridError) as error:
        plan_of(text, tmp_path)
    assert message in str(error.value)
    assert "grid.yaml:12" in str(error.value)

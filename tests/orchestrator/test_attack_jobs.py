"""Every kind of attack and source of gradients through a plan and its jobs: what the tables say of them."""

from __future__ import annotations

import math

import pytest

from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store, tables
from orchestrator.work import execute
from orchestrator.work.attacking import examples_kept

pytestmark = pytest.mark.slow

TEXT = """
name: attacked
seeds: [0]
experiments:
  - task: classification
    dataset: {name: digits, size: 8}
    backbone: {name: smallcnn, width: 8}
    weights: {pretrain: {dataset: {name: digits, size: 8}, epochs: 3, lr: 0.002, head_lr: 0.002}}
    rule: [bp, brsf]
    finetune: {epochs: 3, lr: 0.001, head_lr: 0.002}
    attacks:
      - {name: pgd, gradient: [feedback, exact, transfer, eot, hybrid], epsilon: [0.02, 0.05], images: 24}
      - {name: noise, draws: 3, epsilon: 0.05, images: 24}
      - {name: [bim, mim], epsilon: 0.05, images: 24}
      - {name: apgd, loss: dlr, steps: 10, epsilon: 0.05, images: 24}
      - {name: autoattack, steps: 5, targets: 2, queries: 20, gradient: exact, epsilon: 0.05, images: 24}
      - {name: square, queries: 50, epsilon: 0.05, images: 24}
      - {name: fgsm, precision: bf16, deterministic: false, epsilon: 0.05, images: 24}
      - {name: geometry, gradient: [feedback, exact], epsilon: [0.02, 0.05], images: 24}
      - {name: hopskipjump, steps: 2, epsilon: [0.5, 2], images: 12}
      - {name: hopskipjump, steps: 2, constraint: linf, queries: 300, epsilon: [0.1, 0.3], images: 12}
      - {name: boundary, steps: 50, epsilon: [0.5, 2], images: 12}
      - {name: smoothing, selection: 5, samples: 40, alpha: 0.05, epsilon: [0.1, 0.3], images: 24}
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The results and the outcomes of the whole grid, and its cells."""
    folder = tmp_path_factory.mktemp("attacked")
    (folder / "grid.yaml").write_text(TEXT)
    plan = compile_plan(load(folder / "grid.yaml"), set(), set())
    context = JobContext(storage=str(folder / "store"), data_root=str(folder), git="", versions="{}")
    for key, job in plan.jobs.items():
        execute.execute(key, dict(job.spec), context)
    store = Store(str(folder / "store"))
    return store.results(), store.outcomes(), plan.cells, store.table("examples", tables.EXAMPLES).to_pandas()


def test_every_cell_has_a_result(done):
    results, _, cells, _ = done
    assert set(results["cell"]) == cells


def test_every_result_says_in_which_arithmetic_model_and_attack_were_computed(done):
    results, _, _, _ = done
    low = results["attack"] == "fgsm"
    assert (results["precision"] == low.map({True: "bf16", False: "float32"})).all()
    assert results.loc[low, "attack_params"].eq('{"deterministic":false,"precision":"bf16"}').all()
    # A CPU has no TF32, and its kernels always give the same bits again.
    assert results["finetune_precision"].eq("float32").all()
    assert results["deterministic"].all()
    assert results["finetune_deterministic"].all()
    assert (results["finetune_device"] == results["device"]).all()


def test_every_epsilon_has_its_norm(done):
    results, _, _, _ = done
    l2 = results.query(
        "attack in ['boundary', 'smoothing'] or (attack == 'hopskipjump' and not attack_params.str.contains('linf'))"
    )
    assert l2["norm"].eq("l2").all()
    assert len(l2) == 12
    assert results.drop(l2.index)["norm"].eq("linf").all()


def test_sources_of_gradients_are_told_apart_and_hybrid_is_the_best_of_two(done):
    results, _, _, _ = done
    pgd = results.query("attack == 'pgd'").pivot_table(index=["rule", "epsilon"], columns="gradient", values="value")
    assert set(pgd.columns) == {"feedback", "exact", "transfer", "eot", "hybrid"}
    assert (pgd["hybrid"] <= pgd[["feedback", "transfer"]].min(axis=1)).all()
    bp = pgd.loc["bp"]
    assert bp["feedback"].equals(bp["exact"].rename("feedback"))
    assert bp["eot"].equals(bp["exact"].rename("eot"))
    surrogates = results.query("gradient in ['transfer', 'hybrid'] and rule == 'brsf'")["surrogate_job"]
    assert surrogates.eq(results.query("rule == 'bp'")["finetune_job"].iloc[0]).all()


def test_queries_and_distances_are_stored_for_each_image_and_agree_with_the_outcomes(done):
    results, outcomes, _, _ = done
    counted = results.query("attack in ['square', 'hopskipjump', 'boundary']")
    assert counted["queries"].notna().all()
    assert results.drop(counted.index)["queries"].isna().all()
    assert counted.query("attack == 'square'")["queries"].between(1, 50).all()
    assert counted.query("attack_params.str.contains('linf')")["queries"].max() <= 300
    for row in counted.query("attack != 'square'").itertuples():
        images = outcomes[outcomes["cell"] == row.cell]
        assert row.failed_starts == (images["distance"] == math.inf).sum()
        assert images["queries"].mean() == pytest.approx(row.queries)
        assert not images["robust"][images["distance"] <= row.epsilon].any()
        assert row.value == images["robust"].mean()
    assert outcomes[outcomes["cell"].isin(results.query("attack == 'square'")["cell"])]["distance"].isna().all()
    assert results.query("attack == 'pgd'")["failed_starts"].isna().all()


def test_entries_of_gradients_that_are_not_finite_are_stored_where_there_are_gradients(done):
    results, outcomes, _, _ = done
    followed = results["gradient"] != "none"
    assert results["nonfinite_grad"][followed].eq(0).all()
    assert results["nonfinite_grad"][~followed].isna().all()
    assert outcomes["nonfinite_grad"][outcomes["cell"].isin(results["cell"][followed])].eq(0).all()


def test_the_loss_around_images_and_the_confidence_in_clean_ones_are_stored_for_each_image(done):
    results, outcomes, _, _ = done
    by_attack = outcomes.merge(results[["cell", "attack", "gradient", "rule"]], on="cell").set_index("attack")
    measured = by_attack.loc["geometry"]
    assert len(measured) == 2 * 2 * 2 * 24
    assert measured[[*tables.MEASURES]].notna().all(axis=None)
    assert measured.query("gradient == 'exact'")["cosine"].min() > 1 - 1e-6
    assert measured.query("gradient == 'feedback' and rule == 'brsf'")["cosine"].max() < 0.99
    assert by_attack.drop("geometry")[[*tables.MEASURES]].isna().all(axis=None)
    assert by_attack.loc["none", "confidence"].between(0.1, 1).all()
    assert by_attack.drop("none")["confidence"].isna().all()


def test_what_is_certified_falls_with_epsilon_and_has_no_adversarial_images(done):
    results, outcomes, _, examples = done
    certified = results[results["attack"] == "smoothing"]
    images = outcomes[outcomes["cell"].isin(certified["cell"])]
    assert (
        images.groupby("cell")["robust"].mean().sort_index().tolist() == certified.sort_values("cell")["value"].tolist()
    )
    by_rule = certified.pivot_table(index="rule", columns="epsilon", values="value")
    assert (by_rule[0.1] >= by_rule[0.3]).all()
    assert by_rule[0.1].gt(0).all()
    assert images["linf"].eq(0).all()
    assert not examples["cell"].isin(certified["cell"]).any()


def test_results_are_of_the_version_whose_numbers_last_moved(done):
    results, _, _, _ = done
    assert results["revision"].eq(0).all()


def test_stronger_attacks_leave_fewer_images(done):
    results, _, _, _ = done
    value = results.query("rule == 'bp' and epsilon == 0.05").set_index(["attack", "gradient"])["value"]
    assert value["noise"].iloc[0] >= value["bim", "feedback"]
    assert value["autoattack", "exact"] <= value["pgd", "exact"]


def test_the_first_images_are_stored_the_same_for_every_rule_and_attack(done):
    results, _, _, examples = done
    results = results[results["attack"] != "smoothing"]
    images = examples.groupby("cell").image.apply(list).loc[results.cell]
    assert [*images.map(len)] == [*results.n.clip(upper=64)]
    assert set(images.map(tuple)) == {tuple(images.iloc[images.map(len).argmax()][:n]) for n in set(images.map(len))}
    assert (examples.groupby("image").clean.nunique() == 1).all()
    assert set(examples.cell) == set(results.cell)


@pytest.mark.parametrize(
    ("shape", "kept"), [((1, 16, 16), 64), ((3, 18, 18), 64), ((3, 32, 32), 21), ((3, 64, 64), 5), ((3, 224, 224), 4)]
)
def test_images_that_are_stored_are_fewer_where_they_are_large(shape, kept):
    assert examples_kept(math.prod(shape)) == kept

"""Corrupted test images through grid, plan, jobs and results: they share the fine-tunes of the clean ones."""

from __future__ import annotations

import json

import pytest
import yaml

import signsym_core as ss
from orchestrator.gridfile.grid import GridError, grid_of, load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_full, compile_plan
from orchestrator.plan.grids import GridText
from orchestrator.results.planned_cells import planned_jobs
from orchestrator.results.rerun import one_cell
from orchestrator.store import Store
from orchestrator.store.fingerprints import OtherImagesError
from orchestrator.work import execute
from signsym_core.datasets.corruptions import STANDARD

DATASET = "{name: digits, size: 8, train_images: 60, test_images: 20}"
TEXT = """
name: corrupted
seeds: [0]
experiments:
  - task: classification
    dataset: [%s]
    backbone: {name: smallcnn, width: 4}
    rule: [bp]
    finetune: {epochs: 1}
    attacks: %s
"""
FOG = {"corruption": ["contrast", "brightness"], "severity": [1, 5]}


def grid(*datasets, attacks="[none]"):
    texts = [
        dataset if isinstance(dataset, str) else json.dumps(yaml.safe_load(DATASET) | dataset) for dataset in datasets
    ]
    return grid_of(TEXT % (", ".join(texts), attacks), "corrupted.yaml")


def test_every_corruption_shares_the_fine_tune_of_the_clean_images():
    alone, both = (compile_plan(grid(*some), set(), set()).jobs for some in ([DATASET], [DATASET, FOG]))
    assert alone.keys() < both.keys()
    assert [job.kind for job in both.values()].count("finetune") == 1
    added = [both[key] for key in both.keys() - alone.keys()]
    assert {job.kind for job in added} == {"attack"}
    tests = [(job.spec["test"]["corruption"], job.spec["test"]["severity"]) for job in added]
    assert sorted(tests) == [("brightness", 1), ("brightness", 5), ("contrast", 1), ("contrast", 5)]
    assert len({job.title for job in both.values()}) == 6
    assert {job.title for job in added} >= {"attack none (corruption contrast, severity 5): bp smallcnn digits seed 0"}


def test_a_grid_without_the_clean_images_trains_on_them_too():
    finetunes = [
        {key for key, job in compile_full(grid(dataset)).jobs.items() if job.kind == "finetune"}
        for dataset in (DATASET, FOG)
    ]
    assert finetunes[0] == finetunes[1]


def test_all_stands_for_the_kinds_of_the_benchmark_and_every_severity():
    datasets = [model.dataset for model in grid("{name: cifar10, corruption: all, severity: all}").models]
    assert [(one.corruption, one.severity) for one in datasets] == [(k, s) for k in STANDARD for s in range(1, 6)]
    computed = {model.dataset.corruption for model in grid({"corruption": "all", "severity": 3}).models}
    assert computed == set(ss.DATASETS["digits"].kinds)


def test_conditions_and_exclusions_name_corruptions_by_lists_too():
    text = TEXT % (f"{DATASET}, {json.dumps(yaml.safe_load(DATASET) | FOG)}", "[none]")
    text += "exclude:\n  - {dataset: {name: digits, corruption: contrast, severity: all}}\n"
    left = [model.dataset.corruption for model in grid_of(text, "g.yaml").models]
    assert left == [None, "brightness", "brightness"]


@pytest.mark.parametrize(
    ("dataset", "words"),
    [
        (
            {"corruption": ["fog"], "severity": 1},
            r"corrupted.yaml:6: .*'corruption' expects null, or one of gauss.*'fog'",
        ),
        ({"corruption": "all"}, "'severity' expects 1 to 5 with a corruption, got null"),
        ({"corruption": [], "severity": 1}, "corruption: expected at least one value"),
        ({"corruption": ["contrast", "contrast"], "severity": 1}, "expected each value once"),
        ({"corruption": "contrast", "severity": ["all"]}, "'severity' expects a whole number or null, got 'all'"),
    ],
)
def test_what_does_not_fit_is_refused_with_its_place(dataset, words):
    with pytest.raises(GridError, match=words):
        grid(dataset)


def test_no_pre_training_names_a_corruption():
    text = (TEXT % (DATASET, "[none]")).replace(
        "    rule:", "    weights: {pretrain: {dataset: {name: digits, corruption: contrast, severity: 1}}}\n    rule:"
    )
    with pytest.raises(GridError, match="expected no 'corruption' of a data set that is pre-trained on"):
        grid_of(text, "corrupted.yaml")


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """The store of a grid of clean and corrupted images, and its text."""
    folder = tmp_path_factory.mktemp("corrupted")
    flat = json.dumps(yaml.safe_load(DATASET) | {"corruption": "contrast", "severity": 5})
    text = TEXT % (f"{DATASET}, {flat}", "[{name: pgd, steps: 2, epsilon: 0.1, images: 8}]")
    (folder / "grid.yaml").write_text(text)
    plan = compile_plan(load(folder / "grid.yaml"), set(), set())
    context = JobContext(storage=str(folder / "store"), data_root=str(folder), git="", versions="{}")
    for key, job in plan.jobs.items():
        execute.execute(key, dict(job.spec), context)
    return Store(str(folder / "store")), text, plan, context


def test_results_say_on_which_images_a_model_was_tested(done):
    store, _, plan, _ = done
    results = store.results()
    assert set(results["cell"]) == plan.cells
    assert results["finetune_job"].nunique() == 1
    params = results["dataset_params"].map(json.loads)
    tests = sorted(
        zip(
            results["attack"],
            params.map(lambda one: one.get("corruption", "")),
            params.map(lambda one: one.get("severity", 0)),
            strict=True,
        )
    )
    assert tests == [("none", "", 0), ("none", "contrast", 5), ("pgd", "", 0), ("pgd", "contrast", 5)]


def test_scores_are_those_of_the_model_on_the_corrupted_images(done):
    from orchestrator.work.models import rebuilt

    store, _, plan, context = done
    (finetune,) = plan.finetunes
    model, record = rebuilt(store, finetune)
    source = ss.DATASETS.build(
        "digits", **record["spec"]["dataset"]["parameters"] | {"corruption": "contrast", "severity": 5}
    )
    test = source.load(context.data_root).test
    right = model.eval()(test.images / 255).argmax(1) == test.labels
    results, outcomes = store.results(), store.outcomes()
    corrupted = results[(results["attack"] == "none") & results["dataset_params"].str.contains("contrast")]
    rows = outcomes[outcomes["cell"] == corrupted["cell"].item()].set_index("image")["robust"]
    assert [bool(rows[image]) for image in test.indices.tolist()] == right.tolist()


def test_a_cell_is_rerun_by_a_grid_of_the_same_key(done):
    _, text, plan, _ = done
    jobs = planned_jobs(GridText(text, "g.yaml", ()))
    for cell in plan.cells:
        again = one_cell(jobs, cell)
        assert cell in compile_full(grid_of(again, "again.yaml")).cells


def test_a_cell_after_a_pre_training_is_rerun_too():
    text = TEXT.replace(
        "finetune:", "weights: {pretrain: {dataset: {name: digits, size: 8}, epochs: 1}}\n    finetune:"
    )
    text = text % (f"{json.dumps(yaml.safe_load(DATASET) | FOG)}", "[none]")
    jobs = planned_jobs(GridText(text, "g.yaml", ()))
    for cell in compile_full(grid_of(text, "g.yaml")).cells:
        assert cell in compile_full(grid_of(one_cell(jobs, cell), "again.yaml")).cells


def test_other_corrupted_images_are_refused_and_training_images_are_recorded_once(done, monkeypatch):
    store, _, plan, context = done
    kept = store.names("splits", ".parquet")
    assert len(kept) == 2
    sizes = sorted(len(store.read(f"splits/{name}")) for name in kept)
    assert sizes[0] < sizes[1]
    monkeypatch.setattr("signsym_core.datasets.digits.noisy", lambda images, *_: images // 2)
    (key, job), *_ = ((k, j) for k, j in plan.jobs.items() if "test" in j.spec)
    with pytest.raises(OtherImagesError, match="test: 20 of 20 images are other images"):
        execute.execute(key, dict(job.spec), context)

"""What a plan costs: measured where the store knows, stated where not, against a hand count."""

from __future__ import annotations

import os
import time

import pytest
import storerows

from orchestrator.gridfile.cells import Stages
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import STAGES, Resources
from orchestrator.plan import cost
from orchestrator.plan.compile import compile_plan
from orchestrator.plan.estimate import hours, longest_chain, survey_store, surveying, unshared
from orchestrator.store import Store
from orchestrator.store.apart import apart
from signsym_core.backbones import BACKBONES
from signsym_core.datasets import DATASETS
from signsym_core.finetune import FineTune


@pytest.fixture
def plan(tiny):
    return compile_plan(load(tiny), set(), set())


def put(store, plan, seconds):
    """Results of the plan's attack jobs, and the records of its models, that took so long."""
    for key, job in plan.jobs.items():
        if job.kind == "attack":
            more = {"backbone": job.group[1], "dataset": job.group[2], "attack": job.group[3]}
            storerows.put(store, key, key, seconds=seconds["attack"], gpu_peak=5, gpu_total=10, **more)
        else:
            store.save_model(key, {}, storerows.record(key, dict(job.spec), seconds[job.kind]))


def test_what_was_measured_goes_before_what_is_stated(plan, tmp_path):
    store = Store(str(tmp_path))
    before = survey_store(store).estimates(plan.jobs.values())
    assert before == {key: job.default_seconds for key, job in plan.jobs.items()}
    put(store, plan, {"pretrain": 7.0, "finetune": 5.0, "attack": 2.0})
    found = survey_store(store)
    assert set(found.estimates(plan.jobs.values()).values()) == {7.0, 5.0, 2.0}
    assert found.memory["attack", "smallcnn", "digits", "pgd"] == (5, 10)
    assert found.done_models == {key for key, job in plan.jobs.items() if job.kind != "attack"}


def test_a_large_store_is_surveyed_in_another_process_with_what_cannot_be_used(plan, tmp_path, monkeypatch):
    store = Store(str(tmp_path))
    put(store, plan, {"pretrain": 7.0, "finetune": 5.0, "attack": 2.0})
    (tmp_path / "results/torn.parquet").write_bytes(b"PAR1")
    with surveying(store) as survey_of_store:
        here = survey_of_store()
    monkeypatch.setattr("orchestrator.store.apart.LARGE", 0)
    other = Store(str(tmp_path))
    with surveying(other) as survey_of_store:
        assert survey_of_store() == here
    assert other.skipped.keys() == store.skipped.keys() == {"results/torn.parquet"}
    assert other.unsealed == store.unsealed == {"results/torn.parquet"}


def test_what_happens_in_another_process_is_told_in_this_one():
    with apart(sorted, (3, 1)) as result:
        assert result() == [1, 3]
    with apart(int, "three") as result, pytest.raises(ValueError, match="three"):
        result()
    with apart(os._exit, 3) as result, pytest.raises(ChildProcessError, match="ended early, with status 3"):
        result()
    # What nobody waits for is ended.
    with pytest.raises(ZeroDivisionError), apart(time.sleep, 3600):
        1 / 0  # noqa: B018


def test_hours_chain_and_saving_by_hand(plan, tmp_path):
    store = Store(str(tmp_path))
    put(store, plan, {"pretrain": 3600.0, "finetune": 1800.0, "attack": 900.0})
    found = survey_store(store)
    seconds = found.estimates(plan.jobs.values())
    # One pre-training, three fine-tunes and 13 attack jobs, a core each.
    assert hours(plan.jobs.values(), seconds, "cpu") == pytest.approx(1 + 3 * 0.5 + 13 * 0.25)
    assert hours(plan.jobs.values(), seconds, "gpu") == 0
    assert longest_chain(plan, seconds) == pytest.approx(3600 + 1800 + 900)
    # 27 cells would need 27 fine-tunes: 24 more.
    assert unshared(plan, seconds, found) == pytest.approx(24 * 0.5)


def test_a_stated_time_is_its_arithmetic():
    backbone, dataset = BACKBONES.build("resnet18"), DATASETS.build("cifar10", size=224)
    settings, whole = FineTune(epochs=20), Resources(gpu=1)
    seconds = cost.training(backbone, dataset, settings, whole) - cost.START
    assert seconds == pytest.approx(3 * 20 * 50_000 * 1.81e9 / cost.GPU)
    half = DATASETS.build("cifar10", size=112, train_images=25_000)
    quarter = cost.training(backbone, half, settings, Resources(gpu=0.5)) - cost.START
    assert quarter == pytest.approx(seconds / 4)


@pytest.mark.slow
def test_multiply_adds_are_those_that_torch_counts():
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    for name in BACKBONES.names:
        backbone = BACKBONES.build(name)
        # Shapes are enough. Where gradients are recorded, since nothing is counted inside torch's fused attention.
        with torch.device("meta"), FlopCounterMode(display=False) as counter:
            model = backbone.build(1000, size=224).eval()
            model(torch.rand(1, 3, 224, 224))
        assert counter.get_total_flops() / 2 == pytest.approx(backbone.multiply_adds, rel=0.05), name


def test_resources_of_a_plan_are_those_of_the_stage(tiny):
    sets = ["experiments.0.resources={cpu: 1, pretrain: {cpu: 4}, attack: {gpu: auto}}"]
    jobs = compile_plan(load(tiny, sets), set(), set()).jobs.values()
    wanted = Stages(pretrain=Resources(cpu=4), finetune=Resources(cpu=1), attack=Resources(cpu=1, gpu="auto"))
    for stage in STAGES:
        assert {job.resources for job in jobs if job.kind == stage} == {wanted.of(stage)}

"""Shares of a GPU follow from measured memory."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import signsym_core as ss
from orchestrator.jobs.job import Job, Resources
from orchestrator.plan import cost
from orchestrator.plan.packing import MARGIN, MOST_AT_ONCE, MOST_IN_TURNS, PROCESS, Packing, smallest_share
from orchestrator.plan.rates import network_of

GIB = 2**30


def job(gpu, memory=0.0):
    resources, group = Resources(gpu=gpu), ("attack", "a")
    return Job(key="k", kind="attack", parents=(), spec={}, resources=resources, title="k", group=group, memory=memory)


@given(peak=st.integers(1, 80 * GIB), total=st.integers(8 * GIB, 80 * GIB))
def test_a_share_holds_the_peak_with_its_margin_and_trials_on_one_gpu_hold_together(peak, total):
    share = Packing({("attack", "a"): (peak, total)}, gpus=True).share(job("auto"), halvings=0)
    assert share == 1.0 or share * total >= peak * MARGIN + PROCESS
    assert int(1 / share) * share <= 1


def test_the_first_of_a_kind_is_alone_and_the_largest_peak_counts():
    packing = Packing({("attack", "b"): (GIB, 80 * GIB)}, gpus=True, most=MOST_AT_ONCE)
    assert packing.share(job("auto"), 0) == 1.0
    packing.observe(("attack", "a"), 5 * GIB, 80 * GIB)
    assert packing.share(job("auto"), 0) == pytest.approx(1 / 8, abs=1e-4)
    packing.observe(("attack", "a"), 1 * GIB, 80 * GIB)
    assert packing.share(job("auto"), 0) == pytest.approx(1 / 8, abs=1e-4)
    packing.observe(("attack", "a"), 15 * GIB, 80 * GIB)
    assert packing.share(job("auto"), 0) == pytest.approx(1 / 3, abs=1e-4)


def test_before_anything_is_measured_an_estimate_lets_several_begin_at_once():
    packing = Packing({}, gpus=True, most=8)
    assert packing.share(job("auto", memory=1.2 * GIB), 0) == pytest.approx(1 / 4)
    assert packing.share(job("auto", memory=5 * GIB), 0) == 1.0
    assert packing.share(job("auto", memory=1.2 * GIB), 2) == 1.0
    packing.observe(("attack", "a"), 1 * GIB, 80 * GIB)
    # The GPU is larger than was assumed.
    other = dataclasses.replace(job("auto", memory=5 * GIB), group=("attack", "b"))
    assert packing.share(other, 0) == pytest.approx(1 / 6, abs=1e-4)
    assert Packing({}, gpus=True, total=80 * GIB, most=8).share(other, 0) == pytest.approx(1 / 6, abs=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "weights"), [("resnet18", 11_181_642), ("vgg16", 134_301_514)])
def test_an_estimate_counts_weights_and_what_a_backward_pass_keeps(name, weights):
    """For a network built and run; the peak of ResNet-18 at 64 px was measured to be 0.4 to 1.2 GiB on an H100."""
    backbone, dataset = ss.BACKBONES.build(name), ss.DATASETS.build("cifar10", size=64)
    network = network_of(backbone, (64, 64))
    size, activations = 4 * network.weights, 4 * network.activations
    assert network.weights == weights
    model, kept = backbone.build(10, size=64).eval(), []
    for module in model.modules():
        if not list(module.children()):
            module.register_forward_hook(lambda _module, _inputs, output: kept.append(output.nbytes))
    model(torch.zeros(1, 3, 64, 64))
    assert activations == sum(kept)
    auto = Resources(gpu="auto")
    memory = cost.training_memory(backbone, dataset, ss.FineTune(), auto)
    assert memory == 6 * size + 64 * activations + 3 * 64 * 64 * 60_000
    assert cost.attack_memory(backbone, dataset, auto) == 4 * size + 512 * activations + 3 * 64 * 64 * 60_000
    assert cost.training_memory(backbone, dataset, ss.FineTune(), Resources(gpu=1)) == 0


def test_auto_is_the_cpu_where_there_is_no_gpu():
    assert Packing({}, gpus=False).share(job("auto"), 0) == 0


@pytest.mark.parametrize(
    ("gpu", "halvings", "share"), [(0.25, 1, 0.5), (0.25, 5, 1.0), (1, 2, 1), (4, 1, 4), (0, 3, 0)]
)
def test_a_retry_after_running_out_of_memory_gets_more_of_one_gpu(gpu, halvings, share):
    assert Packing({}, gpus=True).share(job(gpu), halvings) == share


def test_no_more_share_a_gpu_than_get_more_done_together():
    measured = {("attack", "a"): (GIB // 4, 80 * GIB)}
    assert Packing(measured, gpus=True).share(job("auto"), 0) == 1 / MOST_IN_TURNS
    assert Packing(measured, gpus=True, most=MOST_AT_ONCE).share(job("auto"), 0) == 1 / MOST_AT_ONCE
    # A worker with this share can go on with a job of a kind that needs less.
    larger = Packing({("attack", "a"): (5 * GIB, 80 * GIB)}, gpus=True, most=MOST_AT_ONCE)
    assert larger.share(job("auto"), 0) == 1 / MOST_AT_ONCE


def test_shares_are_what_ray_can_keep():
    for need in (0.01, 0.07, 0.2, 0.33, 0.34, 0.6, 1.0, 3.0):
        share = smallest_share(need, 8)
        assert round(share, 4) == share
        assert share <= 1

"""Shares of a GPU follow from measured memory."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.jobs import Job, Resources
from orchestrator.packing import MARGIN, PROCESS, Packing, smallest_share

GIB = 2**30


def job(gpu):
    resources = Resources(gpu=gpu)
    return Job(key="k", kind="attack", parents=(), spec={}, resources=resources, title="k", group=("attack", "a"))


@given(peak=st.integers(1, 80 * GIB), total=st.integers(8 * GIB, 80 * GIB))
def test_a_share_holds_the_peak_with_its_margin_and_trials_on_one_gpu_hold_together(peak, total):
    share = Packing({("attack", "a"): (peak, total)}, gpus=True).share(job("auto"), halvings=0)
    assert share == 1.0 or share * total >= peak * MARGIN + PROCESS
    assert int(1 / share) * share <= 1


def test_the_first_of_a_kind_is_alone_and_the_largest_peak_counts():
    packing = Packing({("attack", "b"): (GIB, 80 * GIB)}, gpus=True)
    assert packing.share(job("auto"), 0) == 1.0
    packing.observe(("attack", "a"), 5 * GIB, 80 * GIB)
    assert packing.share(job("auto"), 0) == pytest.approx(1 / 8, abs=1e-4)
    packing.observe(("attack", "a"), 1 * GIB, 80 * GIB)
    assert packing.share(job("auto"), 0) == pytest.approx(1 / 8, abs=1e-4)
    packing.observe(("attack", "a"), 15 * GIB, 80 * GIB)
    assert packing.share(job("auto"), 0) == pytest.approx(1 / 3, abs=1e-4)


def test_auto_is_the_cpu_where_there_is_no_gpu():
    assert Packing({}, gpus=False).share(job("auto"), 0) == 0


@pytest.mark.parametrize(
    ("gpu", "halvings", "share"), [(0.25, 1, 0.5), (0.25, 5, 1.0), (1, 2, 1), (4, 1, 4), (0, 3, 0)]
)
def test_a_retry_after_running_out_of_memory_gets_more_of_one_gpu(gpu, halvings, share):
    assert Packing({}, gpus=True).share(job(gpu), halvings) == share


def test_shares_are_what_ray_can_keep():
    for need in (0.01, 0.07, 0.2, 0.33, 0.34, 0.6, 1.0, 3.0):
        share = smallest_share(need)
        assert round(share, 4) == share
        assert share <= 1

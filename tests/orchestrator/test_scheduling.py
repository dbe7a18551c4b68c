"""Jobs without science on a real Ray: shares of declared GPUs, retries of every cause, hangs, and order."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path

import pytest
from sweeps import ROOT, finish, start

from orchestrator.engine.controller import KEPT

pytestmark = pytest.mark.slow

DRIVER = Path(__file__).with_name("jobs.py")
#: Holds the module that these jobs' workers import as torch.
STANDIN = Path(__file__).with_name("standin")


@dataclasses.dataclass(frozen=True)
class Ran:
    """What became of jobs."""

    #: The state of each, the error of those that failed, and what each try of each saw.
    states: dict
    blamed: dict
    seen: dict
    #: The most trials that Tune knew of at once.
    remembered: int
    #: What Ray itself started, besides the agents of its node.
    programs: list


def run(folder, jobs, gpus=0, cpus=4, deaths=6, env=None):
    environment = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(STANDIN)]), **(env or {})}
    status, output = finish(start(DRIVER, folder, json.dumps(jobs), gpus, cpus, deaths, env=environment))
    assert status == 0, output
    seen = {path.stem: json.loads(path.read_text()) for path in (folder / "seen").glob("*.json")}
    return Ran(**json.loads(output.splitlines()[-1]), seen=seen)


def test_no_two_trials_overlap_on_a_share_of_a_gpu(tmp_path):
    shares = {"half": 0.5, "third": 0.3333, "whole": 1, "quarter": 0.25}
    jobs = {f"{name}{at}": {"gpu": gpu, "cpu": 1, "seconds": 0.5} for name, gpu in shares.items() for at in range(3)}
    jobs["none0"] = {"cpu": 1, "seconds": 0.5}
    # What fits beside each other must run beside each other: neither of these ends before the other began.
    jobs["half0"]["meets"], jobs["half1"]["meets"] = "half1", "half0"
    ran = run(tmp_path, jobs, gpus=2, cpus=5)
    seen = ran.seen
    assert set(ran.states.values()) == {"done"}
    assert len(seen) == len(jobs)
    for trial, saw in seen.items():
        asked = shares.get(trial.rstrip("0123456789-"), 0)
        assert saw["share"] == asked
        # Each sees one device, its own, and one without a share sees none.
        assert saw["gpu"] in (("0", "1") if asked else ("",)), trial
    for device in ("0", "1"):
        there = [saw for saw in seen.values() if saw["gpu"] == device]
        assert there
        for moment in {saw["began"] for saw in there}:
            together = [saw["share"] for saw in there if saw["began"] <= moment < saw["ended"]]
            assert sum(together) <= 1 + 1e-9


def test_a_worker_starts_while_its_job_waits_for_another_and_stays_for_it(tmp_path):
    both = {"a": {"parent": "first", "meets": "b"}, "b": {"parent": "first", "meets": "a"}}
    ran = run(tmp_path, {"first": {"meets": "warm"}} | both, cpus=2)
    assert set(ran.states.values()) == {"done"}
    first, *others = (ran.seen[f"{key}-0"] for key in ("first", "a", "b"))
    assert len({worker["pid"] for worker in others}) == 2
    assert first["pid"] in {worker["pid"] for worker in others}
    assert all(worker["born"] < first["ended"] for worker in others)


def test_a_sweep_ends_whose_workers_all_started_before_their_jobs(tmp_path):
    parents = {"p": {"meets": "q"}, "q": {"meets": "warm", "seconds": 1}}
    jobs = parents | {f"{parent}{at}": {"parent": parent} for parent in parents for at in range(3)}
    assert set(run(tmp_path, jobs, cpus=4).states.values()) == {"done"}


def test_jobs_that_hang_beside_a_fault_of_the_shared_gpu_run_again_without_blame(tmp_path):
    # More faults than deaths are allowed: each ends all workers. An attempt ended beside the other's fault is excused.
    faulty = {"meets": "beside", "fails": {str(at): "fault" for at in range(20)}}
    ran = run(tmp_path, {"beside": {"fails": {"0": "hang"}}, "x": faulty, "y": faulty}, cpus=3, deaths=1)
    assert ran.states == {"beside": "done", "x": "failed", "y": "failed"}
    assert all("CUDA error: device-side assert" in error for error in ran.blamed.values())
    assert "beside-1" in ran.seen


@pytest.fixture(scope="module")
def failing(tmp_path_factory):
    """Jobs that fail in every way, and jobs of another group, a0 to a3, whose share of the one GPU is automatic."""
    told = {"gpu_peak": 10 * 2**30, "gpu_total": 80 * 2**30}
    measured = {"gpu": "auto", "cpu": 1, "seconds": 0.4, "told": told, "group": "measured"}
    jobs = {f"a{at}": measured for at in range(4)} | {
        "fine": {"seconds": 0.1},
        "flaky": {"seconds": 0.1, "fails": {"0": "error"}},
        "poison": {"seconds": 0.1, "fails": {str(at): "error" for at in range(9)}, "leads": True},
        "blocked": {"parent": "poison"},
        "killed": {"seconds": 0.1, "fails": {"0": "kill", "1": "kill"}},
        "large": {"seconds": 0.1, "gpu": 0.25, "fails": {"0": "memory", "1": "memory"}},
        "hangs": {"seconds": 0.1, "minutes": 0.25, "fails": {"0": "hang"}},
        "exits": {"seconds": 0.1, "fails": dict.fromkeys("012", "exit")},
        "mute": {"seconds": 0.1, "fails": dict.fromkeys("012", "unpicklable")},
    }
    return run(tmp_path_factory.mktemp("failing"), jobs, gpus=1, cpus=3)


def test_automatic_shares_follow_the_first_jobs_measured_memory(failing):
    measured = [saw for trial, saw in failing.seen.items() if trial[0] == "a"]
    by_start = sorted(measured, key=lambda saw: saw["began"])
    assert len(by_start) == 4
    assert by_start[0]["share"] == 1
    # 10 GiB, 30 % more and 750 MiB are 13.7 of 80 GiB.
    assert {saw["share"] for saw in by_start[1:]} == {0.25}


def test_each_cause_has_its_own_retry(failing):
    failed = {"poison": "failed", "blocked": "blocked", "exits": "failed", "mute": "failed"}
    done = dict.fromkeys(["fine", "flaky", "killed", "large", "hangs", *(f"a{at}" for at in range(4))], "done")
    assert failing.states == done | failed
    seen = failing.seen
    assert [(seen[f"large-{at}"]["share"], seen[f"large-{at}"]["halvings"]) for at in range(3)] == [
        (0.25, 0),
        (0.5, 1),
        (1.0, 2),
    ]
    # Its first try never came back to tell.
    assert "hangs-0" in seen
    assert "poison-2" in seen
    assert "poison-3" not in seen


def test_an_error_is_told_with_its_real_cause_also_where_it_came_between_the_job_and_ray(failing):
    assert failing.blamed == {
        "poison": "ValueError: as the test wanted",
        "exits": "SystemExit: 3",
        "mute": "TypeError: cannot pickle '_thread.lock' object",
    }


def test_a_worker_that_rays_memory_monitor_ends_is_a_dead_worker_like_any_other(tmp_path):
    # Below what any machine uses, so that no job lives long.
    monitor = {"RAY_memory_usage_threshold": "0.001", "RAY_memory_monitor_refresh_ms": "100"}
    ran = run(tmp_path, {"large": {"seconds": 300}}, deaths=2, env=monitor)
    assert ran.states == {"large": "failed"}
    assert ran.blamed["large"].startswith("Ray's memory monitor ended the worker on ")
    assert "used)" in ran.blamed["large"]


@pytest.fixture(scope="module")
def two_stages(tmp_path_factory):
    """Four fine-tunes with six attacks each, and more jobs than Tune is to remember."""
    jobs = {f"f{at}": {"seconds": 0.6, "leads": True} for at in range(4)}
    jobs |= {f"f{at}-a{number}": {"seconds": 0.1, "parent": f"f{at}"} for at in range(4) for number in range(6)}
    jobs |= {f"short{number}": {"seconds": 0, "parent": "f3"} for number in range(2 * KEPT)}
    return run(tmp_path_factory.mktemp("stages"), jobs, cpus=2)


def test_the_first_attack_starts_before_the_last_fine_tune_ends(two_stages):
    assert set(two_stages.states.values()) == {"done"}
    fine_tunes = [saw for trial, saw in two_stages.seen.items() if trial[0] == "f" and "a" not in trial]
    attacks = [saw for trial, saw in two_stages.seen.items() if trial[0] == "f" and "a" in trial]
    assert min(saw["began"] for saw in attacks) < max(saw["began"] for saw in fine_tunes)
    # Workers stay: two slots need few processes.
    assert len({saw["pid"] for saw in two_stages.seen.values()}) <= 4


def test_a_worker_begins_as_one_program_and_ray_without_a_server_of_its_dashboard(two_stages):
    # A worker with an environment of its own begins as another program that imports Ray for that alone.
    assert all(saw["environment"] == {} and saw["root"] == str(ROOT) for saw in two_stages.seen.values())
    assert two_stages.programs == ["gcs_server", "raylet"]


def test_tune_forgets_the_trials_that_are_over(two_stages):
    assert len(two_stages.states) > 2 * KEPT
    # And those that run, wait for a slot, or ended since it last forgot.
    assert KEPT <= two_stages.remembered <= KEPT + 20

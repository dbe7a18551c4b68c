"""`sbatch cluster/slurm.sh` on a real SLURM, as its comments say: submit, watch, end, requeue, resume."""

from __future__ import annotations

import json
import re
import shlex
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from nodes import repository, why_not
from slurm import PROGRAMS, WITHOUT_ENVIRONMENT, Slurm
from sweeps import TINY, WATCHDOG

from orchestrator.store import Store

REASON = why_not(*PROGRAMS)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

#: On the GPUs that SLURM gives: fine-tunes of seconds, and some that never end.
ON_GPUS = TINY.replace("experiments:", "defaults: {resources: {gpu: 1}}\nexperiments:")
GRIDS = {
    "long": ON_GPUS.replace("epochs: 2,", "epochs: 100,"),
    "endless": ON_GPUS.replace("epochs: 2,", "epochs: 1000000,"),
}


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    root = repository(folder / "repository")
    for name, grid in GRIDS.items():
        (root / f"grids/{name}.yaml").write_text(grid)
    # The environment that `make sweep` would make: the one that the tests run in.
    programs = root / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    commands = {"python": sys.executable, "ray": Path(sys.executable).with_name("ray")}
    commands["signsym"] = f"{sys.executable} -m orchestrator.commands.cli"
    for name, command in commands.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    # What the file says to change: these nodes have one CPU and one GPU for the job.
    script = root / "cluster/slurm.sh"
    smaller = script.read_text().replace("--gpus-per-node=4", "--gpus-per-node=1")
    script.write_text(smaller.replace("--cpus-per-task=32", "--cpus-per-task=1"))
    with Slurm(folder) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def out_of_time(slurm):
    """A job that never ends by itself; SLURM warns it once before its two minutes are over."""
    minutes = ["--nodes=1", "--nodelist=node2", "--time=2", "--signal=B:USR1@5"]
    return slurm.submit(*minutes, "cluster/slurm.sh", "grids/endless.yaml", "--storage", slurm.folder / "endless")


def events(storage):
    lines = [line for log in sorted((storage / "events").glob("*.jsonl")) for line in log.read_text().splitlines(True)]
    return sorted((json.loads(line) for line in lines if line.endswith("\n")), key=lambda event: event["at"])


def until(happened, job):
    """Wait for what `happened` returns; what the job has printed is the error where it ends before."""
    end = time.monotonic() + WATCHDOG
    while not (result := happened()):
        assert job.running, job.output
        assert time.monotonic() < end, job.output
        time.sleep(0.3)
    return result


def printed_way_on(job):
    """The words below "go on with:", which end the job's output."""
    return shlex.split(re.split("go on with:", job.output, flags=re.IGNORECASE)[-1].strip().splitlines()[0])


def test_a_job_that_is_ended_before_its_sweep_began_says_how_to_begin_again(slurm, out_of_time):
    job = slurm.submit("--nodes=1", "--nodelist=node1", "cluster/slurm.sh", "grids/tiny.yaml")
    until(lambda: job.facts()["JobState"] == "RUNNING", job)
    # A job counts as running before its script does, which is ready for signals when its first step begins.
    until(lambda: f"{job.id}.0" in slurm.run("squeue", "--steps", "--noheader", "--jobs", job.id), job)
    slurm.run("scancel", "--batch", "--signal=TERM", job.id)
    assert job.wait() == 130
    assert printed_way_on(job) == ["sbatch", "cluster/slurm.sh", "grids/tiny.yaml"]


def test_a_node_without_the_environment_is_named_and_nothing_runs(slurm):
    job = slurm.submit("--nodes=1", f"--nodelist={WITHOUT_ENVIRONMENT}", "cluster/slurm.sh", "grids/tiny.yaml")
    assert job.wait() == 2
    assert f"node {WITHOUT_ENVIRONMENT}: expected {slurm.repository}/.venv" in job.output


def test_two_jobs_that_start_together_on_one_node_both_complete(slurm, out_of_time):
    stores = [slurm.folder / "first", slurm.folder / "second"]
    nodes = ["node1,node2", f"node1,{WITHOUT_ENVIRONMENT}"]
    jobs = [
        slurm.submit("--nodes=2", f"--nodelist={pair}", "cluster/slurm.sh", "grids/long.yaml", "--storage", store)
        for pair, store in zip(nodes, stores, strict=True)
    ]
    for job, store in zip(jobs, stores, strict=True):
        until(lambda store=store: any(event["event"] == "job_started" for event in events(store)), job)
    # While both run: nothing where Ray listens by default, and no folder that others may enter.
    look = "ss --no-header --listening --numeric --tcp; stat --format='mode %a' /tmp/signsym-0-*"
    seen = slurm.run("srun", "--overlap", f"--jobid={jobs[0].id}", "--nodelist=node1", "--nodes=1", "bash", "-c", look)
    assert not re.search(r":(6379|8265|10001|52365)\s", seen), seen
    assert re.findall(r"mode (\d+)", seen) == ["700", "700"], seen
    for job, store in zip(jobs, stores, strict=True):
        assert job.wait() == 0, job.output
        assert "Complete: all 27 cells have a result." in job.output
        starts = [event for event in events(store) if event["event"] == "job_started"]
        assert set(Counter(event["job"] for event in starts).values()) == {1}
        assert {event["gpu"] for event in starts} == {1.0}
        assert not Store(str(store)).names("failures", ".parquet")
        assert "27 of 27 cells done" in slurm.run(".venv/bin/signsym", "status", store)
    first, second = ({event["host"] for event in events(store) if event["event"] == "job_finished"} for store in stores)
    assert first == {"node1", "node2"}
    assert second == {"node1"}
    assert f"node {WITHOUT_ENVIRONMENT} does nothing for this sweep" in jobs[1].output
    assert "does nothing" not in jobs[0].output
    gone = "ls -d /tmp/signsym-0-* || pgrep raylet || echo none"
    left = slurm.run("srun", "--nodes=1", "--nodelist=node1", "bash", "-c", gone)
    assert left.splitlines()[-1] == "none", left


@pytest.fixture(scope="module")
def ended(slurm):
    """A job that was put back into the queue once, went on, and was ended."""
    store = slurm.folder / "requeued"
    job = slurm.submit("cluster/slurm.sh", "grids/long.yaml", "--storage", store)

    def happened(name, sweeps):
        """Events of that name, once so many sweeps have begun and the last of them had one."""
        begun = [place for place, event in enumerate(events(store)) if event["event"] == "sweep_started"]
        return len(begun) == sweeps and [event for event in events(store)[begun[-1] :] if event["event"] == name]

    until(lambda: happened("job_finished", 1), job)
    slurm.run("scontrol", "requeue", job.id)
    (started, *_) = until(lambda: happened("job_started", 2), job)
    # Nothing waits for the sweep of before, whose sign of life is removed where it left one.
    assert len(Store(str(store)).names("sweeps", ".json")) == 1
    again = [event["at"] for event in events(store) if event["event"] == "sweep_started"]
    print(f"second sweep at {again[-1]}, its first job at {started['at']}")
    until(lambda: happened("job_finished", 2), job)
    slurm.run("scancel", "--batch", "--signal=TERM", job.id)
    return job


def test_a_requeued_job_goes_on_and_ends_in_order(ended):
    assert ended.wait() == 130, ended.output
    assert ended.facts()["Restarts"] == "1"


def test_the_command_that_an_ended_job_names_goes_on(slurm, ended):
    store = slurm.folder / "requeued"
    words = printed_way_on(ended)
    assert words == ["sbatch", "cluster/slurm.sh", "grids/long.yaml", "--storage", str(store)]
    resumed = slurm.submit(*words[1:])
    assert resumed.wait() == 0, resumed.output
    assert "Complete: all 27 cells have a result." in resumed.output
    assert not Store(str(store)).names("failures", ".parquet")


def test_a_job_whose_time_is_over_ends_in_order(out_of_time, slurm):
    assert out_of_time.wait() == 130, out_of_time.output
    storage = str(slurm.folder / "endless")
    assert printed_way_on(out_of_time) == ["sbatch", "cluster/slurm.sh", "grids/endless.yaml", "--storage", storage]

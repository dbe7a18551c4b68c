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
from gate import HELD, Gate
from nodes import repository, why_not
from slurm import NODES, PROGRAMS, WITHOUT_ENVIRONMENT, Slurm
from sweeps import WATCHDOG

from orchestrator.store import Store

REASON = why_not(*PROGRAMS)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

#: On the GPUs that SLURM gives.
GRID = HELD.replace("experiments:", "defaults: {resources: {gpu: 1}}\nexperiments:")


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("slurm")
    root = repository(folder / "repository")
    (root / "grids/held.yaml").write_text(GRID)
    # The environment that `make sweep` would make: the one that the tests run in.
    programs = root / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    commands = {"python": sys.executable, "ray": Path(sys.executable).with_name("ray")}
    commands["signsym"] = f"{sys.executable} -m orchestrator.commands.cli"
    for name, command in commands.items():
        (programs / name).write_text(f'#!/bin/sh\nexec {command} "$@"\n')
        (programs / name).chmod(0o755)
    # What the file says to change: a job has one node, which has one CPU and one GPU for it.
    script, changed = root / "cluster/slurm.sh", (root / "cluster/slurm.sh").read_text()
    for shipped, smaller in (("--nodes=2", "--nodes=1"), ("node=4", "node=1"), ("task=32", "task=1")):
        assert changed.count(shipped) == 1
        changed = changed.replace(shipped, smaller)
    script.write_text(changed)
    with Slurm(folder) as cluster:
        yield cluster


@pytest.fixture(scope="module")
def out_of_time(slurm):
    """A job that never ends by itself; SLURM warns it once before its two minutes are over."""
    gate = Gate(slurm.folder / "for-ever")
    gate.close(host="node2")
    minutes = ["--nodes=1", "--nodelist=node2", "--time=2", "--signal=B:USR1@5"]
    words = ["cluster/slurm.sh", "grids/held.yaml", "--storage", slurm.folder / "endless"]
    return slurm.submit(*minutes, *words, gate=gate)


def events(storage):
    lines = [line for log in sorted((storage / "events").glob("*.jsonl")) for line in log.read_text().splitlines(True)]
    return sorted((json.loads(line) for line in lines if line.endswith("\n")), key=lambda event: event["at"])


def until(happened, job):
    """Wait for what `happened` returns; what the job has printed is the error where it ends before."""
    end, asked = time.monotonic() + WATCHDOG, 0.0
    while not (result := happened()):
        # To ask SLURM starts programs.
        if time.monotonic() - asked > 3:
            assert job.running, job.output
            asked = time.monotonic()
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
    nodes = [("node1", "node2"), ("node1", WITHOUT_ENVIRONMENT)]
    works = [{"node1", "node2"}, {"node1"}]
    gates = [Gate(slurm.folder / f"gate-{store.name}") for store in stores]
    jobs = []
    for pair, hosts, gate, store in zip(nodes, works, gates, stores, strict=True):
        for host in hosts:
            gate.close(host=host)
        words = ["--nodes=2", f"--nodelist={','.join(pair)}", "cluster/slurm.sh", "grids/held.yaml", "--storage", store]
        jobs.append(slurm.submit(*words, gate=gate))
    for job, hosts, gate in zip(jobs, works, gates, strict=True):
        until(lambda hosts=hosts, gate=gate: gate.hosts() == hosts, job)
    # While both run: nothing where Ray listens by default, and no folder that others may enter.
    look = "ss --no-header --listening --numeric --tcp; stat --format='mode %a' /tmp/signsym-0-*"
    seen = slurm.run("srun", "--overlap", f"--jobid={jobs[0].id}", "--nodelist=node1", "--nodes=1", "bash", "-c", look)
    assert not re.search(r":(6379|8265|10001|52365)\s", seen), seen
    assert re.findall(r"mode (\d+)", seen) == ["700", "700"], seen
    for hosts, gate in zip(works, gates, strict=True):
        for host in hosts:
            gate.open(host=host)
    for job, store in zip(jobs, stores, strict=True):
        assert job.wait() == 0, job.output
        assert "Complete: all 27 cells have a result." in job.output
        starts = [event for event in events(store) if event["event"] == "job_started"]
        assert set(Counter(event["job"] for event in starts).values()) == {1}
        assert {event["gpu"] for event in starts} == {1.0}
        assert not Store(str(store)).names("failures", ".parquet")
        assert "27 of 27 cells done" in slurm.run(".venv/bin/signsym", "status", store)
    for hosts, store in zip(works, stores, strict=True):
        assert {event["host"] for event in events(store) if event["event"] == "job_finished"} == hosts
    assert f"node {WITHOUT_ENVIRONMENT} does nothing for this sweep" in jobs[1].output
    assert "does nothing" not in jobs[0].output
    gone = "ls -d /tmp/signsym-0-* || pgrep raylet || echo none"
    left = slurm.run("srun", "--nodes=1", "--nodelist=node1", "bash", "-c", gone)
    assert left.splitlines()[-1] == "none", left


@pytest.fixture(scope="module")
def ended(slurm):
    """A job that was put back into the queue once, went on, and was ended."""
    store, gate = slurm.folder / "requeued", Gate(slurm.folder / "gate-requeued")
    for host in NODES:
        gate.close(host=host)
    job = slurm.submit("cluster/slurm.sh", "grids/held.yaml", "--storage", store, gate=gate)
    until(gate.hosts, job)
    slurm.run("scontrol", "requeue", job.id)

    def fine_tunes_again():
        """The fine-tunes that the second sweep has begun, which wait at the gate for ever."""
        begun = [place for place, event in enumerate(events(store)) if event["event"] == "sweep_started"]
        after = events(store)[begun[1] :] if len(begun) == 2 else []
        return [event for event in after if event["event"] == "job_started"]

    (started, *_) = until(fine_tunes_again, job)
    # Nothing waits for the sweep of before, whose sign of life is removed where it left one.
    assert len(Store(str(store)).names("sweeps", ".json")) == 1
    again = [event["at"] for event in events(store) if event["event"] == "sweep_started"]
    print(f"second sweep at {again[-1]}, its first job at {started['at']}")
    slurm.run("scancel", "--batch", "--signal=TERM", job.id)
    return job


def test_a_requeued_job_goes_on_and_ends_in_order(ended):
    assert ended.wait() == 130, ended.output
    assert ended.facts()["Restarts"] == "1"


def test_the_command_that_an_ended_job_names_goes_on(slurm, ended):
    store = slurm.folder / "requeued"
    words = printed_way_on(ended)
    assert words == ["sbatch", "cluster/slurm.sh", "grids/held.yaml", "--storage", str(store)]
    resumed = slurm.submit(*words[1:])
    assert resumed.wait() == 0, resumed.output
    assert "Complete: all 27 cells have a result." in resumed.output
    assert not Store(str(store)).names("failures", ".parquet")


def test_a_job_whose_time_is_over_ends_in_order(out_of_time, slurm):
    assert out_of_time.wait() == 130, out_of_time.output
    storage = str(slurm.folder / "endless")
    assert printed_way_on(out_of_time) == ["sbatch", "cluster/slurm.sh", "grids/held.yaml", "--storage", storage]

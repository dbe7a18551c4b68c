"""`cluster/slurm.sh` by itself on a real SLURM: with stand-ins for Ray and for the sweep, which may fail as we like."""

from __future__ import annotations

import sys
import time

import pytest
from nodes import repository, why_not
from slurm import PROGRAMS, WITHOUT_ENVIRONMENT, Slurm
from sweeps import WATCHDOG

REASON = why_not(*PROGRAMS)
pytestmark = pytest.mark.skipif(bool(REASON), reason=REASON)

#: Starts as Ray does and runs until it is ended; fails as often as FOLDER/NODE has lines, and takes one of them away.
RAY = """#!/bin/bash
mkdir -p "$RAY_TMPDIR/ray"
failures={folder}/$(hostname)
if [ -s "$failures" ]; then sed -i 1d "$failures"; echo "no Ray today"; exit 1; fi
echo "$(hostname): $*" >>{folder}/started
echo "2026 SUCC scripts.py -- Ray runtime started."
exec sleep 1000
"""
#: Has no grpc, as Ray alone has none, where there is FOLDER/plain.
PYTHON = """#!/bin/sh
if [ "$*" = "-c import grpc" ] && [ -e {folder}/plain ]; then exit 1; fi
exec {python} "$@"
"""
#: Runs until it is ended, or until there is FOLDER/enough.
SWEEP = """
import os, signal, sys, time
def stop(*_):
    print("go on with:", os.environ["SIGNSYM_COMMAND"], flush=True)
    sys.exit(130)
signal.signal(signal.SIGTERM, stop)
print("sweep", *sys.argv[1:], flush=True)
while not os.path.exists("{folder}/enough"):
    time.sleep(0.1)
"""


@pytest.fixture(scope="module")
def slurm(tmp_path_factory):
    folder = tmp_path_factory.mktemp("script")
    root = repository(folder / "repository")
    programs = root / ".venv/bin"
    programs.mkdir(parents=True)
    (programs / "activate").write_text(f"PATH={programs}:$PATH\n")
    (programs / "python").write_text(PYTHON.format(folder=folder, python=sys.executable))
    (programs / "ray").write_text(RAY.format(folder=folder))
    for program in ("python", "ray"):
        (programs / program).chmod(0o755)
    (root / "orchestrator/sweep.py").write_text(SWEEP.format(folder=folder))
    with Slurm(folder) as cluster:
        yield cluster


def submit(slurm, nodes, *words):
    (slurm.folder / "started").write_text("")
    (slurm.folder / "enough").unlink(missing_ok=True)
    count = len(nodes.split(","))
    options = [f"--nodes={count}", f"--nodelist={nodes}", "--gpus-per-node=2", "--cpus-per-task=3"]
    return slurm.submit(*options, "cluster/slurm.sh", *words)


def until(happened, job):
    end = time.monotonic() + WATCHDOG
    while not happened():
        assert job.running, job.output
        assert time.monotonic() < end, job.output
        time.sleep(0.2)


def left(slurm, job, node):
    """The job's folder of Ray's files on a node, or "none"."""
    look = f"ls -d /tmp/signsym-0-{job.id} 2>/dev/null || echo none"
    return slurm.run("srun", "--nodes=1", f"--nodelist={node}", "bash", "-c", look).split()[-1]


def test_a_ray_that_does_not_start_at_once_is_started_again(slurm):
    (slurm.folder / "node1").write_text("once\n")
    (slurm.folder / "node2").write_text("once\ntwice\n")
    job = submit(slurm, "node1,node2", "grid.yaml", "--storage", "a folder")
    until(lambda: len((slurm.folder / "started").read_text().splitlines()) == 2, job)
    (slurm.folder / "enough").touch()
    assert job.wait() == 0, job.output
    port = 20000 + 2 * int(job.id)
    assert f"sweep grid.yaml --storage a folder --address 10.77.0.1:{port}" in job.output
    assert "node node2: Ray ended with status 1 (attempt 2 of 3)" in job.output
    assert "does nothing" not in job.output
    head, worker = sorted((slurm.folder / "started").read_text().splitlines())
    assert f"node1: start --head --port {port} " in head
    assert f"--ray-client-server-port {port + 1} " in head
    assert f"node2: start --address 10.77.0.1:{port} " in worker
    for start in (head, worker):
        assert f"--temp-dir /tmp/signsym-0-{job.id}/ray " in start
        assert "--num-cpus 3 --num-gpus 2 --min-worker-port 0" in start
    assert [left(slurm, job, node) for node in ("node1", "node2")] == ["none", "none"]


@pytest.mark.parametrize("node", ["node2", WITHOUT_ENVIRONMENT])
def test_a_worker_whose_ray_never_starts_is_named(slurm, node):
    (slurm.folder / node).write_text("always\n" * 3)
    job = submit(slurm, f"node1,{node}", "grid.yaml")
    until(lambda: f"node {node} does nothing for this sweep, which goes on without it" in job.output, job)
    (slurm.folder / "enough").touch()
    assert job.wait() == 0, job.output
    if node == WITHOUT_ENVIRONMENT:
        # What is refused once is not tried again.
        assert f"start.sh on {node}: expected the command ray" in job.output
        assert "attempt 2" not in job.output


def test_a_plain_ray_gets_no_port_for_the_client_that_it_lacks(slurm):
    (slurm.folder / "plain").touch()
    job = submit(slurm, "node1", "grid.yaml")
    (slurm.folder / "enough").touch()
    assert job.wait() == 0, job.output
    assert "ray-client-server-port" not in (slurm.folder / "started").read_text()
    (slurm.folder / "plain").unlink()


def test_nothing_runs_where_the_head_never_starts(slurm):
    (slurm.folder / "node1").write_text("always\n" * 3)
    job = submit(slurm, "node1", "grid.yaml")
    assert job.wait() == 2
    assert "node node1: Ray did not start: " in job.output
    assert "no Ray today" in job.output
    assert "sweep grid.yaml" not in job.output
    # Its logs are kept, and named.
    assert f"its logs are in {left(slurm, job, 'node1')}/" in job.output


@pytest.mark.parametrize("signal", ["TERM", "USR1"])
def test_the_sweep_is_told_to_end_and_says_how_to_go_on(slurm, signal):
    job = submit(slurm, "node1,node2", "my grid.yaml")
    until(lambda: "sweep my grid.yaml" in job.output, job)
    slurm.run("scancel", "--batch", f"--signal={signal}", job.id)
    assert job.wait() == 130
    assert r"go on with: sbatch cluster/slurm.sh my\ grid.yaml" in job.output
    assert job.output.count("o on with") == 1
    assert "does nothing" not in job.output
    assert left(slurm, job, "node1") == "none"

"""Whole sweeps as a user runs them: each starts a Ray of its own where only loopback exists."""

from __future__ import annotations

import contextlib
import json
import os
import random
import re
import signal
import stat
import time
from collections import Counter
from pathlib import Path

import pytest
import torch
from sweeps import TINY, WATCHDOG, finish, start

from orchestrator.store import Store, tables

#: Columns that say when and how long, not what.
CLOCK = ["seconds", "finished_at"]


def table(storage):
    """The results without the clock's columns, in an order of their own."""
    frame = Store(str(storage)).results().drop(columns=CLOCK)
    return frame.sort_values("cell").reset_index(drop=True)


def sweep(*arguments, **options):
    return start("orchestrator/sweep.py", *arguments, **options)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The tiny grid's path and the store of one sweep that nothing disturbed."""
    folder = tmp_path_factory.mktemp("undisturbed")
    (folder / "tiny.yaml").write_text(TINY)
    status, output = finish(sweep(folder / "tiny.yaml", "--storage", folder / "store"))
    assert status == 0, output
    return folder / "tiny.yaml", folder / "store"


@pytest.fixture(scope="module")
def slow(tmp_path_factory):
    """A grid whose fine-tunes take seconds, so that a test can strike while one runs, and its undisturbed table."""
    folder = tmp_path_factory.mktemp("slow")
    (folder / "slow.yaml").write_text(TINY.replace("epochs: 2,", "epochs: 40,"))
    status, output = finish(sweep(folder / "slow.yaml", "--storage", folder / "store"))
    assert status == 0, output
    return folder / "slow.yaml", table(folder / "store")


def started(storage, word, seconds=WATCHDOG):
    """Wait until a job whose title has `word` runs."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        lines = [line for log in (storage / "events").glob("*.jsonl") for line in log.read_text().splitlines()]
        events = [json.loads(line) for line in lines]
        if any(event["event"] == "job_started" and word in event["title"] for event in events):
            return
        time.sleep(0.05)
    raise AssertionError(f"no {word} job started within {seconds} s")


def test_every_cell_has_a_result_and_its_outcomes(undisturbed):
    _, storage = undisturbed
    store = Store(str(storage))
    results, outcomes = store.results(), store.outcomes()
    # Three models: the clean cell each, and two attacks x two gradients x two epsilons.
    assert len(results) == 3 * (1 + 8)
    means = outcomes.groupby("cell")["robust"].agg(["mean", "size"]).loc[results["cell"]]
    assert (means["mean"].to_numpy() == results["value"].to_numpy()).all()
    assert (means["size"].to_numpy() == results["n"].to_numpy()).all()
    assert not store.skipped


def test_under_bp_both_gradients_are_one_job(undisturbed):
    results = table(undisturbed[1]).query("rule == 'bp' and attack == 'pgd'")
    assert set(results["gradient"]) == {"feedback", "exact"}
    assert results["job"].nunique() == 1
    values = results.pivot(index="epsilon", columns="gradient", values="value")
    assert (values["feedback"] == values["exact"]).all()


def test_provenance_and_clean_cells(undisturbed):
    results = table(undisturbed[1])
    assert results[["git", "versions", "device", "finetune_job"]].notna().all(axis=None)
    clean = results.query("attack == 'none'")
    assert clean["epsilon"].eq(0).all()
    assert clean["gradient"].eq("none").all()


def test_a_second_run_does_nothing_and_says_so(undisturbed, run):
    grid, storage = undisturbed
    before = {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()}
    status, output = run("orchestrator/sweep.py", grid, "--storage", storage)
    assert status == 0
    assert "Nothing to do" in output
    assert {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()} == before


def test_adding_an_epsilon_runs_only_that(undisturbed, run):
    grid, storage = undisturbed
    before = table(storage)
    wider = grid.with_name("wider.yaml")
    wider.write_text(TINY.replace("epsilon: [0, 0.1]", "epsilon: [0, 0.1, 0.2]"))
    status, output = run("orchestrator/sweep.py", wider, "--storage", storage)
    assert status == 0, output
    assert "10 jobs to run (10 attack)" in output
    after = table(storage)
    kept = after[after["cell"].isin(before["cell"])].reset_index(drop=True)
    assert kept.equals(before)
    new = after[~after["cell"].isin(before["cell"])]
    assert set(new["epsilon"]) == {0.2}
    assert len(new) == 3 * 4


@pytest.mark.parametrize("attempt", range(2))
def test_killed_at_a_random_moment_and_run_again_gives_the_same_table(slow, tmp_path, attempt):
    grid, wanted = slow
    seconds = random.uniform(4, 22)
    process = sweep(grid, "--storage", tmp_path / "store")
    time.sleep(seconds)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    time.sleep(2)
    store = Store(str(tmp_path / "store"))
    finished = set(store.names("results", ".parquet")), store.done_models()
    stamps = {name: (tmp_path / "store/results" / name).stat().st_mtime_ns for name in finished[0]}
    status, output = finish(sweep(grid, "--storage", tmp_path / "store"))
    assert status == 0, f"killed after {seconds:.1f} s\n{output}"
    again = {name: (tmp_path / "store/results" / name).stat().st_mtime_ns for name in finished[0]}
    assert again == stamps, "what was finished must not be computed again"
    assert table(tmp_path / "store").equals(wanted), f"killed after {seconds:.1f} s"
    assert not list((tmp_path / "store").rglob("progress.safetensors"))


def test_a_failed_job_is_retried_recorded_and_the_rest_goes_on(tmp_path, run):
    grid = tmp_path / "grid.yaml"
    grid.write_text(
        TINY.replace("rule: [bp, usf, brsf]", "rule: [usf]")
        + """  - task: classification
    dataset: {name: imagefolder, path: not-there, size: 8}
    backbone: {name: smallcnn, width: 4}
    rule: [usf]
    finetune: {epochs: 1}
    attacks: [{name: fgsm, epsilon: 0.1}]
"""
    )
    storage = tmp_path / "store"
    status, output = run("orchestrator/sweep.py", grid, "--storage", storage, "--data-root", tmp_path)
    assert status == 1
    assert f"image folder {tmp_path / 'not-there'} does not exist" in output
    assert "--retry-failed" in output
    results = table(storage)
    assert set(results["dataset"]) == {"digits"}
    assert len(results) == 9
    failures = Store(str(storage)).table("failures", tables.FAILURES).to_pylist()
    assert [failure["attempt"] for failure in failures] == [3]
    assert "DataNotFoundError" in failures[0]["traceback"]
    status, output = run("-m", "orchestrator.commands.cli", "status", storage)
    assert status == 1
    assert "1 failed, 2 blocked, 0 missing" in output
    # Without --retry-failed the failure stands; with it, and the data in place, the sweep completes.
    status, output = run("orchestrator/sweep.py", grid, "--storage", storage, "--data-root", tmp_path)
    assert status == 1
    assert "0 jobs to run" in output
    from PIL import Image

    for split in ("train", "test"):
        for label, shade in (("dark", 20), ("light", 230)):
            (tmp_path / "not-there" / split / label).mkdir(parents=True)
            for at in range(4):
                Image.new("RGB", (8, 8), (shade + at,) * 3).save(tmp_path / "not-there" / split / label / f"{at}.png")
    retry = ("--data-root", tmp_path, "--retry-failed")
    status, output = run("orchestrator/sweep.py", grid, "--storage", storage, *retry)
    assert status == 0, output
    assert run("-m", "orchestrator.commands.cli", "status", storage)[0] == 0


def test_a_killed_driver_leaves_no_process_and_no_folder(tmp_path):
    grid = tmp_path / "long.yaml"
    grid.write_text(TINY.replace("epochs: 2,", "epochs: 100000,"))
    process = sweep(grid, "--storage", tmp_path / "store", env={"SIGNSYM_TEST": str(tmp_path)})
    started(tmp_path / "store", "finetune")
    before = _carrying(tmp_path)
    assert any(b"raylet" in command for command in before.values())
    # python -I watch.py MARK FOLDER
    (folder,) = {command.split(b"\0")[4].decode() for command in before.values() if b"watch.py" in command}
    assert stat.S_IMODE(os.stat(folder).st_mode) == 0o700
    assert list(Path(folder, "r").glob("session_2*"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + WATCHDOG
    while _carrying(tmp_path) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not _carrying(tmp_path)
    assert not os.path.exists(folder)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_keeps_what_is_finished_and_says_how_to_go_on(slow, tmp_path, number):
    grid, _ = slow
    process = sweep(grid, "--storage", tmp_path / "store")
    started(tmp_path / "store", "finetune")
    os.kill(process.pid, number)
    status, output = finish(process)
    assert status == 130, output
    assert "orchestrator/sweep.py" in output.split("go on with:")[1]
    # The pre-training was finished, and the fine-tune that was told to stop was not.
    assert len(Store(str(tmp_path / "store")).done_models()) == 1
    assert not Store(str(tmp_path / "store")).names("sweeps", ".json")


def test_a_killed_worker_costs_one_retry(slow, tmp_path):
    grid, wanted = slow
    process = sweep(grid, "--storage", tmp_path / "store")
    started(tmp_path / "store", "finetune")
    workers = [pid for pid in _below(process.pid) if b"ResourceTrainable" in _command(pid)]
    assert workers, "no worker was found"
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    status, output = finish(process)
    assert status == 0, output
    assert table(tmp_path / "store").equals(wanted)
    assert "was killed by a signal or crashed" in output


def test_when_rays_node_dies_no_job_is_blamed_and_the_sweep_goes_on(slow, tmp_path):
    grid, wanted = slow
    process = sweep(grid, "--storage", tmp_path / "store")
    started(tmp_path / "store", "finetune")
    (raylet,) = [pid for pid in _below(process.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]
    os.kill(raylet, signal.SIGKILL)
    status, output = finish(process)
    assert not Store(str(tmp_path / "store")).names("failures", ".parquet")
    assert status == 0, output
    assert table(tmp_path / "store").equals(wanted)


def events(storage):
    """What happened in all sweeps on a store."""
    lines = [line for log in (storage / "events").glob("*.jsonl") for line in log.read_text().splitlines()]
    return [json.loads(line) for line in lines]


def test_two_sweeps_at_once_share_the_work_and_do_no_job_twice(slow, tmp_path):
    grid, wanted = slow
    both = [sweep(grid, "--storage", tmp_path / "store") for _ in range(2)]
    for process in both:
        status, output = finish(process)
        assert status == 0, output
    assert table(tmp_path / "store").equals(wanted)
    told = events(tmp_path / "store")
    started = [event["job"] for event in told if event["event"] == "job_started"]
    assert len(started) == len(set(started)) == 17
    assert any(event["event"] == "job_elsewhere" for event in told)
    assert len(Store(str(tmp_path / "store")).names("results", ".parquet")) == 13


def test_the_other_sweeps_death_leaves_its_jobs_to_the_one_that_lives(slow, tmp_path):
    grid, wanted = slow
    first = sweep(grid, "--storage", tmp_path / "store")
    started(tmp_path / "store", "pretrain")
    second = sweep(grid, "--storage", tmp_path / "store")
    started(tmp_path / "store", "finetune")
    os.killpg(first.pid, signal.SIGKILL)
    first.communicate()
    status, output = finish(second)
    assert status == 0, output
    assert table(tmp_path / "store").equals(wanted)


def test_a_sweep_that_is_stopped_until_another_took_over_doubles_nothing_when_it_wakes(slow, tmp_path):
    grid, wanted = slow
    first = sweep(grid, "--storage", tmp_path / "store")
    started(tmp_path / "store", "finetune")
    os.kill(first.pid, signal.SIGSTOP)
    before = Counter((event["event"], event["job"]) for event in events(tmp_path / "store") if "job" in event)
    status, output = finish(sweep(grid, "--storage", tmp_path / "store"))
    assert status == 0, output
    os.kill(first.pid, signal.SIGCONT)
    status, output = finish(first)
    assert status == 0, output
    assert table(tmp_path / "store").equals(wanted)
    starts = Counter(event["job"] for event in events(tmp_path / "store") if event["event"] == "job_started")
    twice = {job for job, count in starts.items() if count > 1}
    # Only what ran when it was stopped may have been done by both.
    assert all(("job_started", job) in before and ("job_finished", job) not in before for job in twice)


def test_status_in_another_terminal_shows_what_runs(tmp_path, run):
    grid = tmp_path / "long.yaml"
    grid.write_text(TINY.replace("epochs: 2,", "epochs: 100000,"))
    process = sweep(grid, "--storage", tmp_path / "store")
    started(tmp_path / "store", "finetune")
    deadline = time.monotonic() + WATCHDOG
    output = ""
    while "running: " not in output and time.monotonic() < deadline:
        _, output = run("-m", "orchestrator.commands.cli", "status", tmp_path / "store")
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert re.search(r"running: .* smallcnn digits seed 0, \d+ s so far, sweep on ", output), output


def test_a_tracker_of_the_ecosystem_by_one_key(tmp_path, run):
    (tmp_path / "grid.yaml").write_text(
        TINY.replace("rule: [bp, usf, brsf]", "rule: [usf]") + "callbacks: tensorboard\n"
    )
    trackers = tmp_path / "trackers"
    words = ["--storage", tmp_path / "store", "--trackers", trackers]
    status, output = run("orchestrator/sweep.py", tmp_path / "grid.yaml", *words)
    assert status == 0, output
    assert list(trackers.rglob("events.out.tfevents.*"))
    assert not [path for path in (tmp_path / "store").rglob("*") if path.suffix in (".pkl", ".pickle")]


def test_a_grid_that_asks_for_gpus_that_are_not_there_is_refused_before_a_job_runs(tmp_path, run):
    (tmp_path / "grid.yaml").write_text(TINY.replace("rule: [bp", "resources: {gpu: 1}\n    rule: [bp"))
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    status, output = run("orchestrator/sweep.py", tmp_path / "grid.yaml", "--storage", tmp_path / "store")
    assert status == 2
    assert "asks for 1 GPUs; the machine has 0 GPUs" in output
    assert "defaults.resources.gpu=auto" in output
    assert not (tmp_path / "store/results").exists()
    words = ["--storage", tmp_path / "store", "--set", "experiments.0.resources.gpu=auto"]
    status, output = run("orchestrator/sweep.py", tmp_path / "grid.yaml", *words)
    assert status == 0, output


def _carrying(mark):
    """The command lines, by id, of the processes that were started with the variable of a test in their environment."""
    commands = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if f"SIGNSYM_TEST={mark}".encode() in file.read().split(b"\0"):
                commands[int(pid)] = _command(pid)
    return commands


def _below(root):
    """Ids of the processes that descend from `root`."""
    parents = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat") as file:
            parents[int(pid)] = int(file.read().rpartition(")")[2].split()[1])
    below = {root}
    while True:
        more = {pid for pid, parent in parents.items() if parent in below} - below
        if not more:
            return sorted(below - {root})
        below |= more


def _command(pid):
    with contextlib.suppress(OSError), open(f"/proc/{pid}/cmdline", "rb") as file:
        return file.read()
    return b""

"""Whole sweeps as a user runs them: each starts a Ray of its own where only loopback exists."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import os
import re
import shutil
import signal
import stat
import time
from collections import Counter
from pathlib import Path

import pandas
import pytest
import ray
import torch
from gate import HELD, Gate
from PIL import Image
from sweeps import ONE, TINY, WATCHDOG, finish, here, start

from orchestrator.commands.cli import main
from orchestrator.jobs.job import JobContext
from orchestrator.store import Store, claims, compact, tables
from orchestrator.work import execute

pytestmark = pytest.mark.slow

#: Its fine-tunes wait six times, each time in the third epoch since they began or went on.
LONG = HELD.replace("epochs: 4,", "epochs: 14,")
#: Columns that say when, how long and by which commit, not what.
CLOCK = ["seconds", "finished_at", "git"]
#: How many of the grid's three fine-tunes run at once on this machine.
SLOTS = min(2, ray._private.utils.get_num_cpus())
MANY = {"RAY_OVERRIDE_RESOURCES": f'{{"CPU": {SLOTS}}}'}
#: What a job of the grid leaves when it is done.
DONE = ("results/*.parquet", "models/*/record.json")


def table(storage):
    """The results without the clock's columns, in an order of their own."""
    frame = Store(str(storage)).results().drop(columns=CLOCK)
    return frame.sort_values("cell").reset_index(drop=True)


def sweep(*arguments, **options):
    return start("orchestrator/sweep.py", *arguments, **options)


@dataclasses.dataclass(frozen=True)
class Undisturbed:
    """A grid whose jobs can be held by a gate, and one sweep of it that nothing disturbed; its files were merged while
    it ran.
    """

    grid: Path
    storage: Path
    #: How many jobs' files were merged before it ended.
    merged: int
    #: The results as that sweep left them.
    table: pandas.DataFrame


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("undisturbed")
    grid, storage = folder / "held.yaml", folder / "store"
    grid.write_text(LONG)
    process, merged = sweep(grid, "--storage", storage, env=Gate(folder / "gate").environment | ONE), 0
    while process.poll() is None:
        # One that was merged, and more.
        if len(list(storage.glob("results/*.parquet"))) > 2:
            merged += compact.compact(Store(str(storage))).jobs
        time.sleep(0.1)
    status, output = finish(process)
    assert status == 0, output
    return Undisturbed(grid, storage, merged, table(storage))


def logs(storage):
    """What happened in each sweep on a store, in the order of their starts."""
    texts = [log.read_text() for log in sorted((storage / "events").glob("*.jsonl"))]
    return [[json.loads(line) for line in text.splitlines(True) if line.endswith("\n")] for text in texts]


def jobs(log, event):
    """The jobs of a sweep to which that happened, each as often as it did."""
    return [entry["job"] for entry in log if entry["event"] == event]


def works(storage, number):
    """Whether the last of so many sweeps on a store has begun a job, or has found that others do all that is ready."""
    if len(logs(storage)) < number:
        return False
    return bool(jobs(logs(storage)[-1], "job_started") or jobs(logs(storage)[-1], "job_elsewhere"))


def told(storage):
    """The jobs that living sweeps say they run."""
    return {trial["job"] for sign in claims.alive(Store(str(storage))) for trial in sign["running"]}


def until(holds):
    """Wait until `holds()` is true."""
    deadline = time.monotonic() + WATCHDOG
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def stamps(storage):
    """When each job that is done was, by the file that says so."""
    return {path: path.stat().st_mtime_ns for pattern in DONE for path in storage.glob(pattern)}


def test_every_cell_has_a_result_and_its_outcomes(undisturbed):
    store = Store(str(undisturbed.storage))
    results, outcomes = store.results(), store.outcomes()
    # Three models: the clean cell each, and two attacks x two gradients x two epsilons.
    assert len(results) == 3 * (1 + 8)
    means = outcomes.groupby("cell")["robust"].agg(["mean", "size"]).loc[results["cell"]]
    assert (means["mean"].to_numpy() == results["value"].to_numpy()).all()
    assert (means["size"].to_numpy() == results["n"].to_numpy()).all()
    assert not store.skipped


def test_a_sweep_that_is_merged_while_it_runs_does_each_job_once(undisturbed):
    assert undisturbed.merged > 0
    (log,) = logs(undisturbed.storage)
    assert len(jobs(log, "job_started")) == len(jobs(log, "job_finished")) == len(set(jobs(log, "job_started"))) == 17
    assert undisturbed.table["cell"].is_unique


def test_under_bp_both_gradients_are_one_job(undisturbed):
    results = undisturbed.table.query("rule == 'bp' and attack == 'pgd'")
    assert set(results["gradient"]) == {"feedback", "exact"}
    assert results["job"].nunique() == 1
    values = results.pivot(index="epsilon", columns="gradient", values="value")
    assert (values["feedback"] == values["exact"]).all()


def test_provenance_and_clean_cells(undisturbed):
    results = Store(str(undisturbed.storage)).results()
    assert results[["git", "versions", "device", "finetune_job"]].notna().all(axis=None)
    clean = results.query("attack == 'none'")
    assert clean["epsilon"].eq(0).all()
    assert clean["gradient"].eq("none").all()


def test_a_second_run_does_nothing_and_says_so(undisturbed, tmp_path):
    grid, storage = undisturbed.grid, undisturbed.storage
    before = {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()}
    status, output = finish(sweep(grid, "--storage", storage, env=Gate(tmp_path).environment))
    assert status == 0
    assert "Nothing to do" in output
    assert {path: path.stat().st_mtime_ns for path in storage.rglob("*") if path.is_file()} == before


def test_what_is_added_is_all_that_runs_and_a_sweep_that_slept_doubles_nothing_when_it_wakes(undisturbed, tmp_path):
    """An epsilon and two rules are added; the sweep sleeps, in the middle of their fine-tunes, until all is done."""
    storage, before, gate = tmp_path / "store", undisturbed.table, Gate(tmp_path / "gate")
    shutil.copytree(undisturbed.storage, storage)
    earlier = len(logs(storage))
    wider = tmp_path / "wider.yaml"
    text = LONG.replace("epsilon: [0, 0.1]", "epsilon: [0, 0.1, 0.2]").replace(
        "[bp, usf, brsf]", "[bp, usf, brsf, fa, frsf]"
    )
    wider.write_text(text)
    gate.close()
    first = sweep(wider, "--storage", storage, env=gate.environment | MANY)
    gate.until_waiting(SLOTS)
    os.kill(first.pid, signal.SIGSTOP)
    until(lambda: Path(f"/proc/{first.pid}/stat").read_text().rpartition(")")[2].split()[0] == "T")
    asleep = logs(storage)[earlier]
    running = set(jobs(asleep, "job_started")) - set(jobs(asleep, "job_finished"))
    second = sweep(wider, "--storage", storage, env=gate.environment | ONE)
    until(lambda: len(logs(storage)) == earlier + 2 and jobs(logs(storage)[-1], "job_elsewhere"))
    gate.open()
    status, output = finish(second)
    assert status == 0, output
    done, finished = stamps(storage), table(storage)
    os.kill(first.pid, signal.SIGCONT)
    status, output = finish(first)
    assert status == 0, output
    # Two attacks on each model, with one for both gradients under BP; and all of the rules that are new.
    assert "22 jobs to run (2 finetune, 20 attack)" in output
    kept = finished[finished["cell"].isin(before["cell"])].reset_index(drop=True)
    assert kept.equals(before)
    new = finished[~finished["cell"].isin(before["cell"])]
    added = new["rule"].isin(["fa", "frsf"])
    assert set(new[~added]["epsilon"]) == {0.2}
    assert (len(new[~added]), added.sum()) == (3 * 4, 2 * (1 + 3 * 4))
    assert table(storage).equals(finished)
    # All was done when it woke, so it began nothing; only what ran when it was stopped may have been done by both.
    assert jobs(logs(storage)[earlier], "job_started") == jobs(asleep, "job_started")
    assert set(jobs(asleep, "job_started")) & set(jobs(logs(storage)[-1], "job_started")) <= running
    assert len(running) >= SLOTS
    changed = {path for path, stamp in stamps(storage).items() if done.get(path) != stamp}
    assert changed <= {storage / f"models/{job}/record.json" for job in running} | {
        storage / f"results/{job}.parquet" for job in running
    }


#: Asks for a GPU, for a tracker, and for data that are not there.
FAILING = (
    TINY.replace("rule: [bp, usf, brsf]", "rule: [usf]").replace(
        "experiments:", "defaults: {resources: {gpu: 1}}\nexperiments:"
    )
    + """  - task: classification
    dataset: {name: imagefolder, path: not-there, size: 8}
    backbone: {name: smallcnn, width: 4}
    rule: [usf]
    finetune: {epochs: 1}
    attacks: [{name: fgsm, epsilon: 0.1}]
callbacks: tensorboard
"""
)


@dataclasses.dataclass(frozen=True)
class Failed:
    """Exit status and output of what was typed, one after the other, for a grid that cannot be done at first."""

    folder: Path
    #: As the grid is, and then on the CPU.
    on_gpu: tuple[int, str]
    on_cpu: tuple[int, str]
    failures: list[dict]
    results: pandas.DataFrame
    status: tuple[int, str]
    #: The same again; and with --retry-failed when the data are there.
    again: tuple[int, str]
    retried: tuple[int, str]
    status_then: tuple[int, str]


def typed(*words):
    """Exit status and output, with errors, of a command that starts nothing, run in this process."""
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.redirect_stderr(output), pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.engine.sweep.apart", here)
        status = main([str(word) for word in words])
    return status, output.getvalue()


def plainly(jobs, prepared, store, settings, console):
    """Do jobs here, one after the other, in the place of Ray."""
    context = JobContext(storage=store.uri, data_root=settings.data_root, git="0", versions="{}")
    for key, job in jobs.items():
        execute.execute(key, dict(job.spec), context)


@pytest.fixture(scope="module")
def failed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("failed")
    storage = folder / "store"
    (folder / "grid.yaml").write_text(FAILING)
    words = (folder / "grid.yaml", "--storage", storage, "--data-root", folder, "--trackers", folder / "trackers")
    with pytest.MonkeyPatch.context() as patch:
        # What a Ray that is started here has.
        patch.setattr("orchestrator.engine.connection.connect", lambda *words, **options: [])
        patch.setattr("orchestrator.engine.cluster.nodes", lambda: [{"CPU": 2.0}])
        # A sweep that were not refused would wait for a GPU for ever: here it does nothing and ends.
        patch.setattr("orchestrator.engine.schedule.run", lambda *words: None)
        on_gpu = typed("sweep", *words)
    words += ("--set", "defaults.resources.gpu=auto")
    on_cpu = finish(sweep(*words, env=ONE))
    failures = Store(str(storage)).table("failures", tables.FAILURES).to_pylist()
    results = table(storage)
    status, again = typed("status", storage), typed("sweep", *words)
    for split in ("train", "test"):
        for label, shade in (("dark", 20), ("light", 230)):
            (folder / "not-there" / split / label).mkdir(parents=True)
            for at in range(4):
                Image.new("RGB", (8, 8), (shade + at,) * 3).save(folder / "not-there" / split / label / f"{at}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("orchestrator.engine.running.run_jobs", plainly)
        retried = typed("sweep", *words, "--retry-failed")
    status_then = typed("status", storage)
    return Failed(folder, on_gpu, on_cpu, failures, results, status, again, retried, status_then)


def test_a_grid_that_asks_for_gpus_that_are_not_there_is_refused_before_a_job_runs(failed):
    if torch.cuda.is_available():
        pytest.skip("this machine has a GPU")
    status, output = failed.on_gpu
    assert status == 2
    assert "asks for 1 GPUs; the machine has 0 GPUs" in output
    assert "defaults.resources.gpu=auto" in output
    assert "11 cells, 0 done already" in failed.on_cpu[1]


def test_a_job_whose_data_are_missing_is_recorded_at_once_and_the_rest_goes_on(failed):
    status, output = failed.on_cpu
    assert status == 1
    assert f"image folder {failed.folder / 'not-there'} does not exist" in output
    assert "--retry-failed" in output
    assert set(failed.results["dataset"]) == {"digits"}
    assert len(failed.results) == 9
    assert [failure["attempt"] for failure in failed.failures] == [1]
    assert "DataNotFoundError" in failed.failures[0]["traceback"]
    status, output = failed.status
    assert status == 1
    assert "1 failed, 2 blocked, 0 missing" in output


def test_a_failure_stands_until_it_is_to_be_retried(failed):
    status, output = failed.again
    assert status == 1
    assert "0 jobs to run" in output
    status, output = failed.retried
    assert status == 0, output
    assert failed.status_then[0] == 0


def test_a_tracker_of_the_ecosystem_by_one_key(failed):
    assert list((failed.folder / "trackers").rglob("events.out.tfevents.*"))
    assert not [path for path in (failed.folder / "store").rglob("*") if path.suffix in (".pkl", ".pickle")]


@dataclasses.dataclass(frozen=True)
class Interrupted:
    """What a sweep that was told to stop left."""

    status: int
    output: str
    models: int
    #: The epoch that the fine-tune which came furthest goes on from.
    epoch: int
    signs: list[str]


@dataclasses.dataclass(frozen=True)
class Disturbed:
    """One store's sweeps: three that were told to stop, one that lost workers, Ray and its driver, and two that took
    over what it ran.
    """

    storage: Path
    interrupted: dict[int, Interrupted]
    #: What `signsym status` said while one ran.
    shown: str
    #: Output of the sweep that was killed at last.
    killed: str
    #: The command lines of its processes, the mode of Ray's folder, and what was left of both.
    processes: list[bytes]
    mode: int
    left: list[bytes]
    folder_left: bool
    #: What was finished when it was killed, and that after the last.
    before: dict[Path, int]
    after: dict[Path, int]
    last: list[tuple[int, str]]
    logs: list[list[dict]]


@pytest.fixture(scope="module")
def disturbed(undisturbed, tmp_path_factory):
    folder = tmp_path_factory.mktemp("disturbed")
    storage, gate = folder / "store", Gate(folder / "gate")
    words = (undisturbed.grid, "--storage", storage)
    interrupted, shown, earlier = {}, "", []
    gate.close()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        process = sweep(*words, env=gate.environment | ONE)
        # Those of a sweep that was interrupted may end a moment after it.
        earlier += gate.until_waiting(beside=earlier)
        # It is told with the next sign of life.
        until(lambda: jobs(logs(storage)[-1], "job_started")[-1] in told(storage))
        shown = shown or finish(start("-m", "orchestrator.commands.cli", "status", storage, env=gate.environment))[1]
        os.kill(process.pid, number)
        status, output = finish(process)
        interrupted[number] = _interrupted(storage, status, output)
    process = sweep(*words, env=gate.environment | MANY | {"SIGNSYM_TEST": str(folder)})
    workers = gate.until_waiting(SLOTS, beside=earlier)
    for worker in workers:
        os.kill(worker, signal.SIGKILL)
    workers += gate.until_waiting(SLOTS, beside=earlier + workers)
    (raylet,) = [pid for pid in _below(process.pid) if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet"]
    os.kill(raylet, signal.SIGKILL)
    gate.until_waiting(SLOTS, beside=earlier + workers)
    gate.close("attack")
    gate.open("training")
    attacks = gate.until_waiting(SLOTS, "attack")
    # It works beside the other, and takes over what that one ran when it was killed.
    heir = sweep(*words, env=gate.environment | ONE)
    until(lambda: works(storage, 5))
    processes = list(_carrying(folder).values())
    # python -I watch.py MARK FOLDER
    (rays,) = {command.split(b"\0")[4].decode() for command in processes if b"watch.py" in command}
    mode = stat.S_IMODE(os.stat(rays).st_mode)
    assert list(Path(rays, "r").glob("session_2*"))
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    left, folder_left = _left(folder, Path(rays))
    killed, _ = process.communicate()
    before = stamps(storage)
    gate.until_waiting(1, "attack", beside=attacks)
    third = sweep(*words, env=gate.environment | ONE)
    until(lambda: works(storage, 6))
    gate.open("attack")
    last = [finish(heir), finish(third)]
    after = stamps(storage)
    seen = (interrupted, shown, killed, processes, mode, left, folder_left, before, after, last, logs(storage))
    return Disturbed(storage, *seen)


def _interrupted(storage, status, output):
    store = Store(str(storage))
    epochs = [store.load_progress(path.parent.name)[1]["epoch"] for path in storage.rglob("progress.safetensors")]
    return Interrupted(status, output, len(store.done_models()), max(epochs), store.names("sweeps", ".json"))


def _left(mark, folder):
    """What the program that clears up after a killed driver has left when it ended; it is ended then."""
    until(lambda: not any(b"watch.py" in command for command in _carrying(mark).values()))
    # One that is just ending has no command line any more.
    left = {pid: command for pid, command in (_carrying(mark) | _holding(folder)).items() if command}
    folder_left = folder.exists()
    for pid in left:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
    return list(left.values()), folder_left


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_interrupted_sweep_keeps_what_is_finished_and_says_how_to_go_on(disturbed, number):
    seen = disturbed.interrupted[number]
    assert seen.status == 130, seen.output
    assert "orchestrator/sweep.py" in seen.output.split("go on with:")[1]
    # The pre-training was finished, and the fine-tunes that were told to stop were not.
    assert seen.models == 1
    assert not seen.signs


def test_a_fine_tune_goes_on_from_its_last_epoch(disturbed):
    # Each was stopped in its third epoch since it began or went on.
    assert [seen.epoch for seen in disturbed.interrupted.values()] == [2, 4, 6]


def test_status_in_another_terminal_shows_what_runs(disturbed):
    assert re.search(r"running: .* held digits seed 0, \d+ s so far, sweep on ", disturbed.shown), disturbed.shown


def test_a_killed_worker_costs_one_retry(disturbed):
    log = logs(disturbed.storage)[3]
    failed = [event for event in log if event["event"] == "job_failed"]
    assert Counter(event["job"] for event in failed) == Counter(jobs(log, "job_started")[:SLOTS])
    assert all(event["again"] for event in failed)
    assert all("was killed by a signal or crashed" in event["error"] for event in failed)
    assert "was killed by a signal or crashed" in disturbed.killed


def test_when_rays_node_dies_no_job_is_blamed_and_the_sweep_goes_on(disturbed):
    log = logs(disturbed.storage)[3]
    names = [event["event"] for event in log]
    assert names.count("ray_lost") == 1
    assert "job_failed" not in names[names.index("ray_lost") :]
    assert "job_finished" in names[names.index("ray_lost") :]
    assert not Store(str(disturbed.storage)).names("failures", ".parquet")


def test_a_killed_driver_leaves_no_process_and_no_folder(disturbed):
    assert any(b"raylet" in command for command in disturbed.processes)
    assert disturbed.mode == 0o700
    assert disturbed.left == []
    assert not disturbed.folder_left


def test_a_disturbed_sweep_computes_nothing_again_and_gives_the_table_of_an_undisturbed_one(undisturbed, disturbed):
    for status, output in disturbed.last:
        assert status == 0, output
    assert table(disturbed.storage).equals(undisturbed.table)
    # The pre-training and the fine-tunes at least.
    assert len(disturbed.before) >= 2
    assert {path: disturbed.after[path] for path in disturbed.before} == disturbed.before
    assert not list(disturbed.storage.rglob("progress.safetensors"))


def test_a_killed_sweeps_jobs_are_taken_over_and_two_that_live_do_none_twice(disturbed):
    earlier, living = disturbed.logs[:4], disturbed.logs[4:]
    begun = [job for log in living for job in jobs(log, "job_started")]
    assert len(begun) == len(set(begun))
    assert not set(begun) & {job for log in earlier for job in jobs(log, "job_finished")}
    # Result files are named by their jobs, and models lie in folders of that name.
    done = {path.stem if path.suffix == ".parquet" else path.parent.name for path in disturbed.before}
    running = set(jobs(earlier[3], "job_started")) - done
    assert len(running) >= SLOTS
    assert running <= set(begun)
    assert len(done | set(begun)) == 17
    assert len(Store(str(disturbed.storage)).names("results", ".parquet")) == 13


def _carrying(mark):
    """The command lines, by id, of the processes that were started with the variable of a test in their environment."""
    commands = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if f"SIGNSYM_TEST={mark}".encode() in file.read().split(b"\0"):
                commands[int(pid)] = _command(pid)
    return commands


def _holding(folder):
    """The command lines, by id, of the processes that have a file below the folder open."""
    commands = {}
    for pid in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            files = [os.readlink(file) for file in Path("/proc", pid, "fd").iterdir()]
            if any(file.startswith(f"{folder}/") for file in files):
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
        # A process that renames itself leaves zeros behind its title.
        return file.read().rstrip(b"\0")
    return b""

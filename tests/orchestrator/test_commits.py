"""A process that is killed within a write: at any line of it, and at any byte."""

from __future__ import annotations

import os
import random
import resource
import shutil
import signal
import sys

import pytest
import torch
from sweeps import TINY

from orchestrator.engine.prepare import sound_plan
from orchestrator.gridfile.grid import load
from orchestrator.jobs.job import JobContext
from orchestrator.plan.estimate import survey_store
from orchestrator.store import Store, files
from orchestrator.work.execute import execute

pytestmark = pytest.mark.slow

#: Columns that say when, how long and by which commit, not what.
CLOCK = ["seconds", "finished_at", "git"]
#: A fine-tune of two epochs, its clean cell and one attack.
SMALL = TINY.replace("[bp, usf, brsf]", "[usf]").replace("name: [fgsm, pgd], gradient: [feedback, exact]", "name: fgsm")
#: How many of the moments are tried in each run of the tests; which ones, chance says.
TRIED = 8


def missing(grid, storage):
    """The jobs that the store lacks, parents first."""
    store = Store(str(storage))
    return sound_plan(grid, survey_store(store), store).jobs


def do(jobs, storage):
    context = JobContext(storage=str(storage), data_root=str(storage), git="", versions="{}")
    for key, job in jobs.items():
        execute(key, dict(job.spec), context)


def run(jobs, storage, prepare=lambda: None):
    """Do the jobs in a process of their own; how it ended, as os.wait has it."""
    if pid := os.fork():
        return os.waitpid(pid, 0)[1]
    try:
        # The threads that this process's torch has started are not in a fork, which would wait for them for ever.
        torch.set_num_threads(1)
        prepare()
        do(jobs, storage)
        os._exit(0)
    finally:
        os._exit(1)


def table(storage):
    store = Store(str(storage))
    frame = store.results().drop(columns=CLOCK).sort_values("cell").reset_index(drop=True)
    assert not store.skipped
    return frame


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The grid, a store with its pre-training alone, and the table of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("commits")
    (folder / "grid.yaml").write_text(SMALL)
    grid = load(folder / "grid.yaml")
    jobs = missing(grid, folder / "store")
    first = next(iter(jobs))
    # In this process, so that those that it forks have all imports.
    do({first: jobs.pop(first)}, folder / "store")
    shutil.copytree(folder / "store", folder / "begun")
    assert run(jobs, folder / "store") == 0
    return grid, folder / "begun", table(folder / "store")


def killed_at_line(number):
    """Kill this process before the line that so many lines of writes come before."""
    lines = 0

    def within(frame, event, argument):
        nonlocal lines
        lines += event == "line"
        if lines == number:
            os.kill(os.getpid(), signal.SIGKILL)
        return within

    code = files.write_file.__code__
    sys.settrace(lambda frame, event, argument: within if frame.f_code is code else None)


def killed_at_byte(number):
    """Have this process killed in the first write that comes to so many bytes, when these are on the disk."""
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_FSIZE, (number, number))


def goes_on(undisturbed, storage, prepare):
    """Run until killed, check what is left, go on, and compare; whether it was killed."""
    grid, begun, expected = undisturbed
    shutil.copytree(begun, storage)
    status = run(missing(grid, storage), storage, prepare)
    assert not os.WIFEXITED(status) or os.WEXITSTATUS(status) == 0
    store = Store(str(storage))
    store.results(), store.outcomes(), store.done_models()
    assert not store.skipped, "no reader sees a half-written file"
    assert run(missing(grid, storage), storage) == 0
    assert table(storage).equals(expected)
    return os.WIFSIGNALED(status)


def test_killed_at_any_line_of_a_write(undisturbed, tmp_path):
    # Ten writes and more, of some seven lines each.
    for number in random.sample(range(1, 71), TRIED):
        assert goes_on(undisturbed, tmp_path / str(number), lambda number=number: killed_at_line(number)), number


def test_killed_at_any_byte_of_a_write(undisturbed, tmp_path):
    smallest = min(path.stat().st_size for path in undisturbed[1].rglob("*") if path.is_file())
    for number in [0, 1, *random.sample(range(2, smallest), TRIED // 3), 4096]:
        assert goes_on(undisturbed, tmp_path / str(number), lambda number=number: killed_at_byte(number)), number


def test_the_test_can_fail(undisturbed, tmp_path, monkeypatch):
    def in_place(target, data):
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data[:100] if target.parent.name == "results" else data)
        if target.parent.name == "results":
            os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr(files, "write_file", in_place)
    with pytest.raises(AssertionError, match="half-written"):
        goes_on(undisturbed, tmp_path / "store", lambda: None)

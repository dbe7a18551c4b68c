"""A process that is killed within a write: at any line of it, and at any byte."""

from __future__ import annotations

import functools
import multiprocessing
import os
import random
import shutil
from multiprocessing import forkserver
from pathlib import Path

import killed
import pytest
from sweeps import TINY

from orchestrator.engine.prepare import sound_plan
from orchestrator.gridfile.grid import load
from orchestrator.plan.compile import compile_full
from orchestrator.plan.estimate import survey_store
from orchestrator.store import Store
from orchestrator.work import models

pytestmark = pytest.mark.slow

#: Columns that say when, how long and by which commit, not what.
CLOCK = ["seconds", "finished_at", "git"]
#: A fine-tune of two epochs, its clean cell and one attack.
SMALL = TINY.replace("[bp, usf, brsf]", "[usf]").replace("name: [fgsm, pgd], gradient: [feedback, exact]", "name: fgsm")
#: How many of the moments are tried in each run of the tests; which ones, chance says.
TRIED = 8


#: Where processes are forked from one that has imported everything and run nothing: in a fork of a process in which a
#: backward pass has started threads, as some tests' do, there is none.
FRESH = multiprocessing.get_context("forkserver")
FRESH.set_forkserver_preload(["killed"])


def missing(grid, storage):
    """The specs of the jobs that the store lacks, parents first."""
    store = Store(str(storage))
    jobs = sound_plan(compile_full(grid), survey_store(store), store).jobs
    return {key: dict(job.spec) for key, job in jobs.items()}


def run(specs, storage, prepare=None):
    """Do the jobs in a process of their own; its exit code, negative where a signal ended it."""
    process = FRESH.Process(target=killed.prepared, args=(prepare, specs, storage))
    process.start()
    process.join()
    return process.exitcode


def table(storage):
    store = Store(str(storage))
    frame = store.results().drop(columns=CLOCK).sort_values("cell").reset_index(drop=True)
    assert not store.skipped
    return frame


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The grid, a store with its pre-training alone, and the table of a run that nothing disturbed."""
    with pytest.MonkeyPatch.context() as patch:
        # It does not search for what it imports at its start where this process would.
        patch.setenv(
            "PYTHONPATH", os.pathsep.join([str(Path(killed.__file__).parent), os.environ.get("PYTHONPATH", "")])
        )
        forkserver.ensure_running()
    folder = tmp_path_factory.mktemp("commits")
    (folder / "grid.yaml").write_text(SMALL)
    grid = load(folder / "grid.yaml")
    specs = missing(grid, folder / "store")
    first = next(iter(specs))
    assert run({first: specs.pop(first)}, folder / "store") == 0
    shutil.copytree(folder / "store", folder / "begun")
    assert run(specs, folder / "store") == 0
    return grid, folder / "begun", table(folder / "store")


def goes_on(undisturbed, storage, prepare):
    """Run until killed, check what is left, go on, and compare; whether it was killed."""
    grid, begun, expected = undisturbed
    shutil.copytree(begun, storage)
    status = run(missing(grid, storage), storage, prepare)
    assert status <= 0
    store = Store(str(storage))
    store.results(), store.outcomes(), store.done_models()
    assert not store.skipped, "no reader sees a half-written file"
    models._loaded.clear()
    killed.do(missing(grid, storage), storage)
    assert table(storage).equals(expected)
    return status < 0


def test_killed_at_any_line_of_a_write(undisturbed, tmp_path):
    # Ten writes and more, of some seven lines each.
    for number in random.sample(range(1, 71), TRIED):
        assert goes_on(undisturbed, tmp_path / str(number), functools.partial(killed.at_line, number)), number


def test_killed_at_any_byte_of_a_write(undisturbed, tmp_path):
    smallest = min(path.stat().st_size for path in undisturbed[1].rglob("*") if path.is_file())
    for number in [0, 1, *random.sample(range(2, smallest), TRIED // 3), 4096]:
        assert goes_on(undisturbed, tmp_path / str(number), functools.partial(killed.at_byte, number)), number


def test_the_test_can_fail(undisturbed, tmp_path):
    with pytest.raises(AssertionError, match="half-written"):
        goes_on(undisturbed, tmp_path / "store", killed.in_place)

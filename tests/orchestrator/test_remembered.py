"""Plans that are kept: equal to fresh ones, and never used where anything that decides them has changed."""

from __future__ import annotations

import ast
import contextlib
import dataclasses
import os
import subprocess
import sys
import types

import pytest
import storerows
from gridfiles import base, written
from sweeps import ROOT

from orchestrator.gridfile.grid import load
from orchestrator.gridfile.nodes import GridError
from orchestrator.gridfile.shipped import shipped_grids
from orchestrator.gridfile.stored import keep_grid
from orchestrator.jobs import keys
from orchestrator.plan import code, grids, remembered, storespeeds
from orchestrator.plan.compile import compile_full, compile_plan
from orchestrator.plan.estimate import survey_store
from orchestrator.plan.grids import GridText
from orchestrator.plan.remembered import Content, Request
from orchestrator.plan.written import read
from orchestrator.plan.written import written as as_bytes
from orchestrator.results.planned_cells import planned_cells
from orchestrator.store import Store


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """The values of the requests that are computed, here instead of in a new process; what is kept is in tmp_path."""
    monkeypatch.setenv("SIGNSYM_CACHE", str(tmp_path / "cache"))
    values = []

    def call(function, requests, names):
        values.extend(request.values for request in requests)
        return lambda: function(requests, names)

    monkeypatch.setattr(remembered, "calling_apart", lambda: contextlib.nullcontext(call))
    return values


def kept(tmp_path):
    return sorted((tmp_path / "cache/plans").glob("*"))


def doubled(text, source):
    if text == "wrong":
        raise GridError(f"{source}:1: wrong")
    return Content(2 * text.encode(), kept=text != "passing")


def results(*texts):
    with remembered.remembering([Request(doubled, (text,), "file") for text in texts]) as wait:
        return wait()


def test_what_was_computed_is_kept_by_its_values_and_errors_are_not(computed, tmp_path):
    assert results("a", "b") == [b"aa", b"bb"]
    assert results("b", "c", "a") == [b"bb", b"cc", b"aa"]
    assert computed == [("a",), ("b",), ("c",)]
    (error,) = results("wrong")
    assert str(error) == "file:1: wrong"
    results("wrong")
    results("passing")
    results("passing")
    assert computed[3:] == [("wrong",)] * 2 + [("passing",)] * 2
    assert len(kept(tmp_path)) == 3


def test_what_is_computed_within_another_context_is_by_its_process(computed, monkeypatch):
    processes, begin = [], remembered.calling_apart
    monkeypatch.setattr(remembered, "calling_apart", lambda: processes.append(1) or begin())
    with remembered.remembering([Request(doubled, ("a",))]) as wait:
        assert wait() == [b"aa"]
        assert results("b") == [b"bb"]
        assert results("a", "b") == [b"aa", b"bb"]
    assert len(processes) == 1
    assert results("c") == [b"cc"]
    assert len(processes) == 2


def test_other_code_computes_anew_and_so_do_members_of_the_users_own(computed, tmp_path, monkeypatch):
    package = tmp_path / "package"
    package.mkdir()
    (package / "rule.py").write_text("scale = 1")
    monkeypatch.setattr(code, "PACKAGES", (types.SimpleNamespace(__name__="package", __path__=[str(package)]),))
    results("a")
    os.utime(package / "rule.py", (0, 0))
    results("a")
    assert len(computed) == 1
    (package / "rule.py").write_text("scale = 2")
    results("a")
    (package / "new.py").touch()
    results("a")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "torch-9.9.dist-info").mkdir()
    results("a")
    (tmp_path / "torchvision.py").touch()
    monkeypatch.delitem(sys.modules, "torchvision", raising=False)
    results("a")
    assert len(computed) == 5
    assert len(kept(tmp_path)) == 5
    monkeypatch.setenv("SIGNSYM_EXTENSIONS", "held")
    results("a")
    results("a")
    assert len(computed) == 7
    assert len(kept(tmp_path)) == 5


def test_code_that_is_edited_while_it_computes_keeps_nothing(computed, tmp_path, monkeypatch):
    digests = iter("ab")
    monkeypatch.setattr(remembered, "code_digest", lambda: next(digests))
    assert results("a") == [b"aa"]
    assert kept(tmp_path) == []


@pytest.mark.parametrize("damage", [lambda data: data[:-1], lambda data: data[:-1] + b"?", lambda data: b"", None])
def test_a_damaged_or_foreign_file_is_computed_anew(computed, tmp_path, damage):
    results("a", "b")
    of_one, of_other = kept(tmp_path)
    of_one.write_bytes(of_other.read_bytes() if damage is None else damage(of_one.read_bytes()))
    assert results("a", "b") == [b"aa", b"bb"]
    assert len(computed) == 3
    assert results("a", "b") == [b"aa", b"bb"]
    assert len(computed) == 3


def test_what_was_not_used_for_longest_is_removed_beyond_a_size(computed, tmp_path, monkeypatch):
    results("a", "b")
    monkeypatch.setattr(remembered, "KEPT", 2 * kept(tmp_path)[0].stat().st_size)
    for number, path in enumerate(kept(tmp_path)):
        os.utime(path, (number, number))
    oldest, _ = kept(tmp_path)
    results("c")
    assert oldest not in kept(tmp_path)
    assert len(kept(tmp_path)) == 2


def test_a_cache_that_cannot_be_written_costs_time_only(computed, tmp_path):
    (tmp_path / "cache").touch()
    assert results("a") == results("a") == [b"aa"]


def comparable(plan):
    """A plan whose descriptions are in the form of keys, where a list of parameters is no tuple."""
    points = {key: job.spec.get("points") for key, job in plan.jobs.items()}
    jobs = {key: dataclasses.replace(job, spec=keys.canonical(job.spec)) for key, job in plan.jobs.items()}
    return dataclasses.replace(plan, jobs=jobs), points, list(jobs)


@pytest.mark.parametrize("name", shipped_grids())
def test_the_plan_of_a_shipped_grid_is_the_same_from_its_bytes(name):
    full = compile_full(load(shipped_grids()[name]))
    again = read(as_bytes(full))
    assert comparable(again) == comparable(full)
    done = set(sorted(full.cells)[::2]) | set(next(iter(full.attacks.values())).cells)
    models = set(sorted(full.finetunes)[::2])
    assert comparable(again.left(done, models)) == comparable(full.left(done, models))


def test_a_plan_with_a_weights_file_is_not_kept_since_the_file_may_change(tmp_path):
    def made(**settings):
        path = written(tmp_path, base(**settings))
        return grids.plan_as_bytes(path.read_text(), [], str(path))

    assert made().kept
    (tmp_path / "w.pth").write_bytes(b"weights")
    assert not made(weights=str(tmp_path / "w.pth")).kept
    before = {"dataset": "digits", "epochs": 1, "weights": str(tmp_path / "w.pth")}
    assert not made(weights={"pretrain": before}).kept


def test_speeds_are_the_same_when_they_are_kept(computed, tmp_path, tiny, monkeypatch):
    store = Store(str(tmp_path / "store"))
    for job in compile_plan(load(tiny), set(), set()).jobs.values():
        if job.kind == "attack":
            cells = [cell for cell, *_ in keys.cells(job.spec)]
            attack = {"attack": job.spec["attack"]["name"], "gradient": job.spec["gradient"], "device": "cpu x 1"}
            more = {"finetune_job": job.parents[0], "seconds": 7.0, "forwards": 90, "backwards": 9, "precision": "tf32"}
            storerows.put(store, job.key, *cells, **attack, **more)
        else:
            record = storerows.record(job.key, dict(job.spec), seconds=20.0)
            store.save_model(job.key, {}, record | {"device": "cpu x 1", "finished_at": None, "precision": None})
    survey = survey_store(store)
    here = survey.speeds
    assert here.ratios
    monkeypatch.delitem(sys.modules, "torch")
    for _ in range(2):
        assert storespeeds.speeds_of(survey.trained, survey.attacked[::-1]) == here
    assert len(computed) == 1


def test_planned_cells_are_the_same_when_they_are_kept(computed, monkeypatch):
    texts = {name: GridText(shipped_grids()[name].read_text(), name) for name in ("corrective", "quickstart-hashing")}
    texts["broken"] = GridText("name: broken", "broken.yaml")
    here = planned_cells(texts)
    monkeypatch.delitem(sys.modules, "torch")
    for _ in range(2):
        kept_cells = planned_cells(texts)
        assert str(kept_cells.pop("broken")) == str(here["broken"])
        assert kept_cells == {name: here[name] for name in kept_cells}
    # What is broken is read again.
    assert len(computed) == 3 + 1


@pytest.mark.slow
def test_libraries_are_all_that_planning_imports():
    packages = [
        ROOT / "signsym_core",
        *(ROOT / "orchestrator" / name for name in ("gridfile", "jobs", "plan", "store")),
    ]
    imported = set()
    for path in (path for package in packages for path in package.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                imported.add(node.module.partition(".")[0])
    ours = {"orchestrator", "signsym_core", "__future__"}
    assert imported - set(sys.stdlib_module_names) - ours - set(code.LIBRARIES) <= {"ray", "rich", "fsspec", "pandas"}
    assert "torch" in imported


#: Plans the grids of the command line by the registries, and prints what it reads beside code.
READS = """
import os, sys
read = []
def hook(event, values):
    if event == "open" and not values[2] & os.O_CREAT:
        read.append(str(values[0]))
sys.addaudithook(hook)
from orchestrator.plan import grids
for path in sys.argv[1:]:
    grids.plan_as_bytes(open(path).read(), [], path)
code = (sys.prefix, sys.base_prefix, {root!r} + "/orchestrator", {root!r} + "/signsym_core", "/proc", "/sys", "/dev")
print([path for path in read if path.startswith("/") and not path.startswith(code)])
"""


@pytest.mark.slow
def test_planning_reads_the_grid_and_code_and_nothing_else():
    names = [str(shipped_grids()[name]) for name in ("corrective", "quickstart-hashing")]
    program = [sys.executable, "-c", READS.format(root=str(ROOT)), *names]
    run = subprocess.run(program, capture_output=True, text=True, check=True)
    assert run.stdout.strip() == repr(names)


#: Prints the status of a store and a plan for it, whether torch was imported, and the number of kept files.
COMMANDS = """
import os, sys
from orchestrator.commands.cli import main
if __name__ == "__main__":
    for command in (["status", sys.argv[1]], ["plan", sys.argv[2], "--storage", sys.argv[1]]):
        try:
            main(command)
        except SystemExit:
            pass
    print("torch:", "torch" in sys.modules, len(os.listdir(os.environ["SIGNSYM_CACHE"] + "/plans")))
"""


@pytest.mark.slow
def test_status_and_plan_do_without_torch(tmp_path):
    grid, store, program = written(tmp_path, base()), Store(str(tmp_path / "store")), tmp_path / "commands.py"
    keep_grid(store, "base", grid.read_text(), [])
    program.write_text(COMMANDS)
    run = subprocess.run(
        [sys.executable, str(program), store.uri, str(grid)],
        env=os.environ | {"SIGNSYM_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "0 of 3 cells done" in run.stdout
    assert "missing: 3 cells, 3 jobs" in run.stdout
    assert run.stdout.rstrip().endswith("torch: False 1")

"""The page of the jobs: what became of each, by what living and killed sweeps recorded."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from dash import dcc
from stores import GRID, block, fill, keep_grid, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Facts, Matrix, Table, Words
from orchestrator.explorer.app import _strip, make_app
from orchestrator.plan.compile import compile_full
from orchestrator.results.live_store import LiveStore
from orchestrator.results.live_stores import opened
from orchestrator.results.runs import runs_of
from orchestrator.store import Store, tables
from orchestrator.store.claims import Claims
from orchestrator.store.events import Events

START = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)
TITLES = {"a": "finetune usf net digits seed 0", "b": "attack pgd exact: usf net digits seed 0"}


def log(folder, name, *events):
    """Write the log of one sweep; each event is (second, name, job, values)."""
    lines = [
        {"at": (START + timedelta(seconds=second)).isoformat(timespec="milliseconds"), "event": f"job_{event}"}
        | {"job": job, "title": TITLES.get(job, f"attack fgsm exact: {job}")}
        | (values[0] if values else {})
        for second, event, job, *values in events
    ]
    (folder / "events").mkdir(parents=True, exist_ok=True)
    path = folder / f"events/{name}.jsonl"
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def fail(folder, job, error="ValueError: no", traceback="Traceback ...\nValueError: no", **values):
    row = {"job": job, "title": TITLES.get(job, job), "attempt": 3, "error": error, "traceback": traceback, "host": "h"}
    row = dict.fromkeys(tables.FAILURES.names) | row | values
    Store(str(folder)).write_table("failures", job, [row], tables.FAILURES)


def states(folder):
    return {run.job: run.state for run in runs_of(Store(str(folder)))}


def test_a_job_is_what_its_last_event_says(tmp_path):
    took = {"seconds": 4.25, "host": "node7", "gpu_peak": 3e9, "gpu_total": 80e9}
    log(
        tmp_path,
        "1",
        (0, "started", "a", {"gpu": 0.25}),
        (1, "failed", "a", {"error": "OSError: gone", "again": True}),
        (2, "started", "a", {"gpu": 0.5}),
        (3, "said", "a", {"words": "micro-batch halved"}),
        (6, "finished", "a", took),
        (7, "started", "b", {"gpu": 0.5}),
    )
    first, second = runs_of(Store(str(tmp_path)))
    assert (first.state, first.attempts, first.seconds, first.host) == ("finished", 2, 4.25, "node7")
    assert (first.gpu, first.gpu_peak, first.gpu_total, first.note) == (0.5, 3e9, 80e9, "micro-batch halved")
    assert first.error == ""
    assert second.state == "interrupted", "its sweep is not alive"


def test_logs_of_two_sweeps_are_read_by_their_times_and_a_torn_line_is_left_out(tmp_path):
    log(tmp_path, "2", (0, "started", "a"), (9, "finished", "a", {"seconds": 9}))
    path = log(tmp_path, "1", (20, "started", "a"), (21, "failed", "a", {"error": "E", "again": False}))
    path.write_bytes(path.read_bytes() + b'{"at": "2026-11-27T12:00:30.000+00:00", "event": "job_fin')
    (tmp_path / "events/0.jsonl").write_text('[1]\n"text"\n{"event": 3, "at": 4}\n{"event": "job_said", "at": "x"}\n')
    (run,) = runs_of(Store(str(tmp_path)))
    assert (run.state, run.attempts, run.error) == ("interrupted", 2, "E"), "a failure that is in the store no longer"


def test_a_failure_of_an_attack_that_was_run_on_other_cells_since_is_over(tmp_path):
    log(
        tmp_path,
        "1",
        (0, "started", "old", {"work": "w"}),
        (1, "failed", "old", {"error": "E", "work": "w"}),
        (0, "started", "alone", {"work": "v"}),
        (1, "failed", "alone", {"error": "E", "work": "v"}),
        (5, "started", "new", {"work": "w"}),
        (6, "finished", "new", {"seconds": 1, "work": "w"}),
    )
    assert states(tmp_path) == {"alone": "interrupted", "new": "finished"}
    fail(tmp_path, "old", work="w")
    assert states(tmp_path)["old"] == "failed"


def test_a_heartbeat_says_what_runs_until_the_log_says_more(tmp_path):
    now = datetime.now(UTC)
    later = (now + timedelta(hours=1) - START).total_seconds()
    log(
        tmp_path,
        "1",
        (0, "started", "a"),
        (0, "started", "gone"),
        (0, "started", "ended"),
        (later, "finished", "ended", {"seconds": 1}),
        (later, "started", "new"),
        (0, "failed", "again", {"error": "E", "again": True}),
    )
    running = [{"job": job, "title": f"t {job}", "seconds": 3.5, "gpu": 0.0} for job in ("a", "ended", "unlogged")]
    with Claims(Store(str(tmp_path)), lambda: running):
        found = {run.job: run for run in runs_of(Store(str(tmp_path)))}
    assert {job: run.state for job, run in found.items()} == {
        "a": "running",
        "gone": "interrupted",
        "ended": "finished",
        "new": "running",
        "again": "waiting",
        "unlogged": "running",
    }
    assert (found["a"].seconds, found["unlogged"].title) == (3.5, "t unlogged")
    assert set(states(tmp_path).values()) == {"interrupted", "finished"}, "the sweep has ended"


def test_failures_stand_by_their_cause_with_a_traceback_and_a_command_that_works(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    keep_grid(folder)
    planned = next(iter(LiveStore(str(folder)).status.planned_cells()))
    for job in (planned.job, "b", "c"):
        fail(folder, job)
    fail(folder, "d", error="OSError: disk full", traceback="Traceback of d")
    found = page(folder, "?p=runs")
    first, second, again = (each for each in found.blocks if isinstance(each, Words))
    assert first.title == "3 jobs failed: ValueError: no"
    assert TITLES["b"] in first.sentences[0]
    assert first.commands == ["Traceback ...\nValueError: no"]
    assert (second.title, second.commands) == ("1 job failed: OSError: disk full", ["Traceback of d"])
    (command,) = again.commands
    # The command is one that signsym takes: its plan is the sweep's, with nothing done.
    words = command.split()
    assert (words[:2], words[-1]) == (["signsym", "sweep"], "--retry-failed")
    assert main([*words[1:-1], "--plan"]) == 0
    keep_grid(folder)
    assert len(list((folder / "grids").iterdir())) == 1


def test_a_stored_grid_that_is_swept_again_with_its_values_is_the_same_file(tmp_path):
    from orchestrator.gridfile.stored import grid_names, keep_grid, stored_text

    store = Store(str(tmp_path))
    keep_grid(store, "asked", GRID, ["seeds=[3]"])
    (name,) = grid_names(store)
    text, sets = stored_text(store, name)
    keep_grid(store, "asked", text, sets)
    assert grid_names(store) == [name]
    assert sets == ("seeds=[3]",)


def test_the_table_has_a_row_for_each_job_failed_ones_first(tmp_path):
    took = {"seconds": 1.26, "host": "n1", "gpu_peak": 1.234e9, "gpu_total": 8e9}
    log(tmp_path, "1", (0, "started", "a"), (1, "finished", "a", took), (2, "started", "b"))
    fail(tmp_path, "c")
    found = page(tmp_path, "?p=runs")
    table = block(found, Table)
    assert [(row["title"], row["state"]) for row in table.rows] == [
        ("c", "failed"),
        (TITLES["b"], "interrupted"),
        (TITLES["a"], "finished"),
    ]
    row = table.rows[-1]
    assert (row["seconds"], row["peak"], row["total"], row["host"]) == (1.3, 1.23, 8.0, "n1")
    assert row["began"] == "2026-11-27 12:00:00"
    assert dict(block(found, Facts).facts) == {
        "fine-tunes": "1 finished",
        "attacks": "1 interrupted",
        "others": "1 failed",
    }
    client = make_app(LiveStore(str(tmp_path))).server.test_client()
    csv = client.get("/table/runs.csv?p=runs", headers={"Host": "localhost"}).text
    assert csv.count("\n") == 4
    assert TITLES["a"] in csv


def test_a_grid_and_a_store_are_chosen_from(tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    keep_grid(one)
    ours = {
        job
        for cells in LiveStore(str(one)).status.planned_cells()
        for job in (cells.job, *dict(cells.trainings).values())
    }
    log(one, "1", *((second, "started", job) for second, job in enumerate([*ours, "other"])))
    log(two, "1", (0, "started", "of two"))
    (name,) = LiveStore(str(one)).status.names
    table = block(page(one, f"?p=runs&grid={name}"), Table)
    assert len(table.rows) == len(ours)
    both = opened([str(one), str(two)])
    assert {row["store"] for row in block(page(both, "?p=runs"), Table).rows} == {"one", "two"}
    assert len(block(page(both, "?p=runs&store=two"), Table).rows) == 1


#: GRID on a model that was trained twice before.
CHAIN = GRID.replace(
    "    rule: [bp, usf]",
    "    weights: {pretrain: {dataset: digits, epochs: 2, weights: {pretrain: {dataset: digits, epochs: 1}}}}\n"
    "    rule: [bp, usf]",
)


def test_a_grid_has_every_training_before_its_attacks_and_attacks_of_which_cells_were_done(tmp_path):
    """Of a chain of trainings, against a plan of the same grid written out here."""
    folder = tmp_path / "store"
    jobs = compile_full(keep_grid(folder, CHAIN)).jobs
    assert Counter(job.kind for job in jobs.values()) == {"pretrain": 2, "finetune": 4, "attack": 10}
    attack = next(job for job in jobs.values() if job.kind == "attack")
    partly = dataclasses.replace(attack, key="partly", title="attack of fewer cells")
    with Events(Store(str(folder)), "sweep", jobs | {"partly": partly}) as events:
        for job in [*(job for job in jobs if job != attack.key), "partly"]:
            events.started(job, 0.0)
    (name,) = LiveStore(str(folder)).status.names
    log(folder, "2", (0, "started", "b"))
    found = block(page(folder, f"?p=runs&grid={name}"), Table)
    assert len(found.rows) == len(jobs)
    assert {row["title"] for row in found.rows} == {job.title for job in (jobs | {attack.key: partly}).values()}
    assert "1 attack that an older version of signsym logged" in found.note, "b has no word of what it does"
    assert "older version" not in block(page(folder, "?p=runs"), Table).note


def test_jobs_that_began_at_once_have_one_order(tmp_path):
    orders = []
    for folder, jobs in ((tmp_path / "1", "abcde"), (tmp_path / "2", "caebd")):
        log(folder, "1", *((0, "started", job) for job in jobs))
        orders.append([row["title"] for row in block(page(folder, "?p=runs"), Table).rows])
    assert orders[0] == orders[1]


@pytest.mark.parametrize(("kind", "whose"), [("pretrain", "its pre-training"), ("finetune", "its fine-tune")])
def test_cells_behind_a_failed_training_say_why_they_have_no_result(tmp_path, kind, whose):
    folder = tmp_path / "store"
    jobs = compile_full(keep_grid(folder, CHAIN)).jobs
    failing = next(job for job in jobs.values() if job.kind == kind)
    fail(folder, failing.key, work=failing.key, title=failing.title, error="OSError: disk full")
    status = LiveStore(str(folder)).status
    states = {cells: status.state(cells) for cells in status.planned_cells()}
    behind = {cells for cells in states if kind == "pretrain" or (cells.seed == 0 and "bp" in cells.line)}
    assert {cells for cells, state in states.items() if state == ("failed", f"{whose}: OSError: disk full")} == behind
    assert {state for cells, state in states.items() if cells not in behind} <= {("not run", "")}
    # A store without any result has no tables.
    fill(folder, seeds=(0,))
    matrix = block(page(folder, "?p=tables&t=all&e=0.1"), Matrix)
    words = " ".join(line for _, entries in matrix.rows for entry in entries for line in entry.lines)
    assert f"{whose}: OSError: disk full" in words
    # The retry command is that of the grid which has the failed job, and of no other.
    keep_grid(folder, GRID)
    (again,) = (each for each in page(folder, "?p=runs").blocks if isinstance(each, Words) and "again" in each.title)
    assert len(again.commands) == 1


def test_a_store_without_a_log_says_so(tmp_path):
    keep_grid(tmp_path / "store")
    assert "no log" in block(page(tmp_path / "store", "?p=runs"), Words).sentences[0]


def test_the_strip_leads_to_the_jobs(tmp_path):
    fail(tmp_path, "b")
    (line,) = _strip(LiveStore(str(tmp_path)))
    (link,) = (each for each in line.children if isinstance(each, dcc.Link))
    # The whole line, where a narrow window cuts it.
    assert "1 job failed" in line.title
    assert (link.children, link.href) == ("1 job failed", "?p=runs")


@pytest.mark.parametrize("failing", ["training", "attack"])
def test_a_failure_is_of_its_own_setting_alone(tmp_path, failing):
    """Jobs that differ in a setting may have one title; the key of an attack depends on which cells were left."""
    folder = tmp_path / "store"

    text = GRID.replace("rule: [bp, usf]", "rule: usf").replace("seeds: [0, 1]", "seeds: [0]")
    keep_grid(folder, text + text.partition("experiments:\n")[2].replace("epochs: 2", "epochs: 3"))
    planned = [cells for cells in LiveStore(str(folder)).status.planned_cells() if "usf" in cells.line]
    one, other = (cells for cells in planned if "feedback" in cells.line)
    title = {
        "training": "finetune usf smallcnn digits seed 0",
        "attack": "attack pgd feedback: usf smallcnn digits seed 0",
    }
    job, work = one.trainings[0][1:] * 2 if failing == "training" else ("of fewer cells", one.work)
    fail(folder, job, work=work, title=title[failing])
    status = LiveStore(str(folder)).status
    assert status.state(one)[0] == "failed"
    assert status.state(other)[0] == "not run"

"""Every kind of damage under every command: no traceback, the file is named, the rest works, its job is not done."""

from __future__ import annotations

import json
import os
import random
import shutil
import socket
import time

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from safetensors.torch import load_file, save_file
from sweeps import here

from orchestrator import pages
from orchestrator.commands.cli import main
from orchestrator.commands.verify import _steps
from orchestrator.engine import sweep
from orchestrator.explorer.app import _strip
from orchestrator.gridfile.grid import load
from orchestrator.gridfile.stored import keep_grid
from orchestrator.jobs.job import JobContext
from orchestrator.pages.context import context_of
from orchestrator.plan.compile import compile_plan
from orchestrator.results.live_store import LiveStore
from orchestrator.results.view import PAGES
from orchestrator.store import Store, leftovers, tables
from orchestrator.work import execute, models
from orchestrator.work.models import rebuilt
from signsym_core import seal
from signsym_core.seal import DamagedError

GRID = """
name: damaged
seeds: [0]
experiments:
  - task: classification
    dataset: {name: digits, size: 8, classes: [5, 6, 7], train_images: 60, test_images: 30}
    backbone: {name: smallcnn, width: 4}
    rule: [bp, usf]
    finetune: {epochs: 1}
    attacks:
      - {name: fgsm, gradient: exact, epsilon: [0, 0.1]}
"""


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small store as a sweep leaves it, and its grid."""
    folder = tmp_path_factory.mktemp("whole")
    (folder / "grid.yaml").write_text(GRID)
    grid, store = load(folder / "grid.yaml"), Store(str(folder / "store"))
    keep_grid(store, grid.name, grid.text, grid.sets)
    context = JobContext(storage=store.uri, data_root=str(folder), git="0", versions="{}")
    for key, job in compile_plan(grid, set(), set()).jobs.items():
        execute.execute(key, dict(job.spec), context)
    models._loaded.clear()
    return folder


@pytest.fixture
def folder(whole, tmp_path):
    """A copy of the store, which a test may damage."""
    shutil.copytree(whole / "store", tmp_path / "store")
    return tmp_path / "store"


def first(folder, pattern):
    """The first file of a pattern that belongs to an attack that is none other's, by name."""
    return sorted(folder.glob(pattern))[0]


def attacked(folder, kind):
    """A file of the FGSM job on the first model."""
    for path in sorted((folder / "results").glob("*.parquet")):
        if pq.read_table(path)["attack"][0].as_py() == "fgsm":
            return folder / kind / path.name
    raise AssertionError("the store has an FGSM job")


def rewritten(path, schema, column, value):
    """Write a table again as a sweep would, with another value in the first row of a column."""
    table = pq.read_table(path, schema=schema).to_pylist()
    table[0][column] = value
    store = Store(str(path.parents[1]))
    store.write_table(path.parent.name, path.stem, table, schema)


def flip(path, place=None, bit=4):
    """Turn one bit of a file round."""
    data = bytearray(path.read_bytes())
    place = len(data) // 2 if place is None else place
    data[place] ^= bit
    path.write_bytes(data)


def results_value(value, column="value"):
    return lambda folder: (rewritten(at := attacked(folder, "results"), tables.RESULTS, column, value), at)[1]


def touched(kind, change):
    """Damage by a change of the FGSM job's file in a folder."""

    def damage(folder):
        path = attacked(folder, kind)
        change(path)
        return path

    return damage


def record(change):
    def damage(folder):
        path = first(folder, "models/*/record.json")
        change(path)
        return path

    return damage


def instead(make):
    """Another thing in the place of a file."""

    def change(path):
        path.unlink()
        make(path)

    return change


def a_socket(path):
    place = os.getcwd()
    os.chdir(path.parent)
    try:
        socket.socket(socket.AF_UNIX).bind(path.name[-20:])
        os.rename(path.name[-20:], path.name)
    finally:
        os.chdir(place)


def too_few(path):
    rows = pq.read_table(path, schema=tables.OUTCOMES).to_pylist()
    Store(str(path.parents[1])).write_table("outcomes", path.stem, rows[:-1], tables.OUTCOMES)


def another_cell(path):
    rows = pq.read_table(path, schema=tables.OUTCOMES).to_pylist()
    more = [row | {"cell": "f" * 64} for row in rows[:3]]
    Store(str(path.parents[1])).write_table("outcomes", path.stem, rows + more, tables.OUTCOMES)


def numbers_for_truth(path):
    table = pq.read_table(path)
    at = table.schema.get_field_index("robust")
    column = pa.array([7] * len(table), pa.int64())
    pq.write_table(table.set_column(at, pa.field("robust", pa.int64()), column), path)


#: By name: what damages a store and returns the file to be named, and whether its job is not done then.
DAMAGE = {
    **{
        f"results: {name}": (touched("results", change), True)
        for name, change in {
            "one bit": flip,
            "torn": lambda path: path.write_bytes(path.read_bytes()[:-100]),
            "empty": lambda path: path.write_bytes(b""),
            "text": lambda path: path.write_text("hello"),
            "a folder": instead(lambda path: path.mkdir()),
            "a pipe": instead(lambda path: os.mkfifo(path)),
            "a socket": instead(a_socket),
            "a link that leads nowhere": instead(lambda path: path.symlink_to("nowhere")),
            "a link to itself": instead(lambda path: path.symlink_to(path.name)),
            "a device": instead(lambda path: path.symlink_to("/dev/zero")),
            "outcomes": lambda path: shutil.copy(path.parents[1] / "outcomes" / path.name, path),
        }.items()
    },
    "results: value 7": (results_value(7.0), True),
    "results: value -1": (results_value(-1.0), True),
    "results: value NaN": (results_value(float("nan")), True),
    "results: value empty": (results_value(None), True),
    "results: value of no outcomes": (
        lambda folder: (
            rewritten(attacked(folder, "results"), tables.RESULTS, "value", 0.123),
            attacked(folder, "outcomes"),
        )[1],
        True,
    ),
    "results: n -5": (results_value(-5, "n"), True),
    "results: n 0": (results_value(0, "n"), True),
    "results: epsilon NaN": (results_value(float("nan"), "epsilon"), True),
    "results: epsilon negative": (results_value(-0.1, "epsilon"), True),
    "results: infinite chance": (results_value(float("inf"), "chance"), True),
    "results: parameters no JSON": (results_value("{", "rule_params"), True),
    "results: parameters nested": (results_value("[" * 100_000, "rule_params"), True),
    **{
        f"outcomes: {name}": (touched("outcomes", change), True)
        for name, change in {
            "one bit": flip,
            "torn": lambda path: path.write_bytes(path.read_bytes()[:-100]),
            "gone": lambda path: path.unlink(),
            "a pipe": instead(lambda path: os.mkfifo(path)),
            "one too few": too_few,
            "of another cell": another_cell,
            "numbers for truth": numbers_for_truth,
            "robust empty": lambda path: rewritten(path, tables.OUTCOMES, "robust", None),
            "linf NaN": lambda path: rewritten(path, tables.OUTCOMES, "linf", float("nan")),
        }.items()
    },
    **{
        f"record: {name}": (record(change), False)
        for name, change in {
            "one bit": flip,
            "torn": lambda path: path.write_bytes(path.read_bytes()[:100]),
            "empty object": lambda path: path.write_text("{}"),
            "a list": lambda path: path.write_text("[]"),
            "null": lambda path: path.write_text("null"),
            "another program's": lambda path: path.write_text(json.dumps({"spec": {"kind": 3}, "seconds": "x"})),
            "nested": lambda path: path.write_text("[" * 200_000),
            "a huge number": lambda path: path.write_text('{"spec": {}, "seconds": ' + "9" * 10_000 + "}"),
            "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe{}"),
            "a folder": instead(lambda path: path.mkdir()),
            "a pipe": instead(lambda path: os.mkfifo(path)),
        }.items()
    },
    **{
        f"grid: {name}": (lambda folder, change=change: (change(at := first(folder, "grids/*.yaml")), at)[1], False)
        for name, change in {
            "one bit": flip,
            "not UTF-8": lambda path: path.write_bytes(b"\xff\xfe"),
            "empty": lambda path: path.write_bytes(b""),
            "a folder": instead(lambda path: path.mkdir()),
            "a pipe": instead(lambda path: os.mkfifo(path)),
        }.items()
    },
    "a note among results": (lambda folder: (p := folder / "results/notes.txt", p.write_text("x"))[0], False),
    "a file among models": (lambda folder: (p := folder / "models/x.bin", p.write_text("x"))[0], False),
    "a name that cannot be printed": (
        lambda folder: ((folder / "results/a\x1b[31m.parquet").write_text("x"), folder / "results/a\\x1b[31m.parquet")[
            1
        ],
        False,
    ),
}


def command_plan(folder, grid, capsys, monkeypatch):
    assert main(["plan", str(grid), "--storage", str(folder)]) == 0
    return capsys.readouterr().out


def command_sweep(folder, grid, capsys, monkeypatch):
    monkeypatch.setattr(sweep, "apart", here)
    monkeypatch.setattr("orchestrator.engine.running.run_jobs", lambda *words: None)
    assert main(["sweep", str(grid), "--storage", str(folder)]) in (0, 1)
    return capsys.readouterr().out


def command_status(folder, grid, capsys, monkeypatch):
    assert main(["status", str(folder)]) in (0, 1)
    return capsys.readouterr().out


def command_verify(folder, grid, capsys, monkeypatch):
    assert main(["status", str(folder), "--verify"]) == 1
    return capsys.readouterr().out


def command_explore(folder, grid, capsys, monkeypatch):
    data = LiveStore(str(folder))
    for name in PAGES:
        pages.build(context_of(data, f"?p={name}"))
    return "\n".join(f"{name}: {reason}" for name, reason in data.skipped.items())


def command_audit(folder, grid, capsys, monkeypatch):
    assert main(["audit", str(folder), "--data-root", str(folder.parent)]) == 0
    return capsys.readouterr().out


def command_export(folder, grid, capsys, monkeypatch):
    said = ""
    for what in ("results", "outcomes", "curves"):
        assert main(["export", str(folder), "--what", what, "--out", str(folder.parent / f"{what}.csv")]) == 0
        said += capsys.readouterr().out
    return said


COMMANDS = [command_plan, command_sweep, command_status, command_verify, command_explore, command_audit, command_export]
#: Commands that read no such file have nothing to say of it.
BLIND = {"record": {"explore", "export"}, "grid": {"plan", "sweep", "audit", "export"}}
BLIND |= {"a file among models": {"explore", "export"}}


@pytest.mark.slow
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.__name__.removeprefix("command_"))
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_of_every_kind_is_named_by_every_command(folder, whole, capsys, monkeypatch, name, command):
    damage, undone = DAMAGE[name]
    named = str(damage(folder).relative_to(folder))
    if name.startswith("grid"):
        # Another grid, so that the store is still one.
        keep_grid(Store(str(folder)), "other", GRID.replace("damaged", "other"), [])
    if not name.startswith("record"):
        # Probes read the models' files alone, and take a third of the time of all tests here.
        monkeypatch.setattr("orchestrator.commands.audit._probes", lambda *words: ())
    said = command(folder, whole / "grid.yaml", capsys, monkeypatch)
    if command.__name__.removeprefix("command_") not in BLIND.get(name.partition(":")[0], ()):
        assert named in said, said
    if undone and command is command_plan:
        assert "done already: 4 cells; missing: 2 cells, 1 jobs" in said


def numbers_of(folder):
    """The files that numbers come from."""
    return [
        path for path in sorted(folder.rglob("*")) if path.is_file() and path.parent.name not in ("sweeps", "events")
    ]


@pytest.mark.slow
def test_one_bit_flipped_anywhere_is_named(folder, capsys):
    """200 places at random among all bytes of the files of numbers, and 50 in and around seals."""
    generator, files = random.Random(0), numbers_of(folder)
    places = [(path, place) for path in files for place in range(path.stat().st_size)]
    chosen = generator.sample(places, 200)
    for path in generator.choices(files, k=50):
        at = max(0, path.read_bytes().rfind(seal.KEY.encode()))
        chosen.append((path, min(at + generator.randrange(100), path.stat().st_size - 1)))
    while chosen:
        # One file of each job at a time, so that no damage hides another's.
        flipped, jobs = {}, set()
        for path, place in list(chosen):
            job = path.parent.name if path.parent.parent.name == "models" else path.stem
            if job not in jobs:
                chosen.remove((path, place))
                jobs.add(job)
                flipped[path] = place, path.read_bytes()
                flip(path, place, 1 << generator.randrange(8))
        # As `status --verify` reads everything, a file at a time.
        store = Store(str(folder))
        for _ in _steps(store):
            pass
        for path, (place, before) in flipped.items():
            path.write_bytes(before)
            assert str(path.relative_to(folder)) in store.skipped, place
        assert len(store.skipped) == len(flipped)
    assert main(["status", str(folder), "--verify"]) == 0
    assert " 0 without a digest" in capsys.readouterr().out


def test_a_seal_covers_every_byte_and_its_files_are_what_they_were(folder):
    for path in numbers_of(folder):
        if path.suffix != ".yaml":
            assert seal.check(path.read_bytes()), path
    assert pq.read_table(attacked(folder, "results")).num_rows == 2
    assert load_file(first(folder, "models/*/model.safetensors"))
    assert json.loads(first(folder, "models/*/record.json").read_bytes())["channels"] == 1
    assert not seal.check(b"anything else")
    with pytest.raises(DamagedError):
        seal.check(b'{"signsym_seal": "signsym-sha255:' + b"0" * 64)


def test_weights_in_anothers_place_and_foreign_ones_are_not_loaded(folder):
    one, other = sorted(folder.glob("models/*/model.safetensors"))
    other.write_bytes(one.read_bytes())
    with pytest.raises(DamagedError, match="another job"):
        Store(str(folder)).load_model(other.parent.name)
    save_file({"x": torch.zeros(3)}, other)
    with pytest.raises(DamagedError, match=r"model.safetensors: it is no smallcnn"):
        rebuilt(Store(str(folder)), other.parent.name)


@pytest.mark.parametrize("change", [flip, lambda path: path.unlink(), lambda path: path.write_bytes(b"x" * 50)])
def test_a_model_that_is_damaged_is_trained_again_where_an_attack_needs_it_and_only_there(
    folder, whole, capsys, change
):
    path = attacked(folder, "results")
    model = folder / "models" / pq.read_table(path)["finetune_job"][0].as_py() / "model.safetensors"
    change(model)
    words = ["plan", str(whole / "grid.yaml"), "--storage", str(folder)]
    assert main(words) == 0
    assert "missing: 0 cells, 0 jobs" in capsys.readouterr().out
    path.unlink()
    assert main(words) == 0
    said = capsys.readouterr().out
    assert "missing: 2 cells, 2 jobs" in said
    assert str(model.relative_to(folder)) in said


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["results", "outcomes", "models"])
def test_the_next_sweep_computes_again_what_is_damaged_and_nothing_else(folder, whole, monkeypatch, capsys, kind):
    before = Store(str(folder)).results().drop(columns=["seconds", "finished_at"])
    damaged = attacked(folder, "results")
    if kind == "models":
        # An attack is missing, and the record of the model that it needs is torn.
        record = folder / "models" / pq.read_table(damaged)["finetune_job"][0].as_py() / "record.json"
        damaged.unlink()
        flip(record)
    else:
        flip(folder / kind / damaged.name)
    ran = []

    def run_jobs(jobs, prepared, store, settings, console):
        context = JobContext(storage=store.uri, data_root=str(folder.parent), git="0", versions="{}")
        for key, job in jobs.items():
            assert not store.exists([job.results]), "a sweep takes a job for done whose file is there"
            ran.append(job.kind)
            execute.execute(key, dict(job.spec), context)

    monkeypatch.setattr(sweep, "apart", here)
    monkeypatch.setattr("orchestrator.engine.running.run_jobs", run_jobs)
    assert main(["sweep", str(whole / "grid.yaml"), "--storage", str(folder)]) == 0
    assert "Complete: all 6 cells" in capsys.readouterr().out
    assert ran == (["finetune", "attack"] if kind == "models" else ["attack"])
    after = Store(str(folder)).results().drop(columns=["seconds", "finished_at"])
    same = ["cell", "value", "n", "epsilon"]
    assert after.sort_values("cell")[same].to_dict("list") == before.sort_values("cell")[same].to_dict("list")
    assert main(["status", str(folder), "--verify"]) == 0


def test_a_failure_on_a_model_that_is_made_again_is_no_reason_to_leave_the_attack_out(folder, whole, monkeypatch):
    results = attacked(folder, "results")
    model = pq.read_table(results)["finetune_job"][0].as_py()
    results.unlink()
    (folder / "models" / model / "model.safetensors").unlink()
    failure = dict.fromkeys(tables.FAILURES.names) | {"job": results.stem, "title": "t", "error": "damaged"}
    Store(str(folder)).write_table("failures", results.stem, [failure], tables.FAILURES)
    jobs = {}
    monkeypatch.setattr(sweep, "apart", here)
    monkeypatch.setattr("orchestrator.engine.running.run_jobs", lambda ran, *words: jobs.update(ran))
    main(["sweep", str(whole / "grid.yaml"), "--storage", str(folder)])
    assert set(jobs) == {results.stem, model}


def test_old_leftovers_are_removed_and_young_ones_and_checkpoints_in_use_stay(folder):
    store = Store(str(folder))
    model = first(folder, "models/*/record.json").parent
    old = [
        folder / "results" / f".x.parquet.{'a' * 32}.tmp",
        model / f".model.safetensors.{'b' * 32}.tmp",
        model / "progress.safetensors",
    ]
    kept = [
        folder / "outcomes" / f".x.parquet.{'c' * 32}.tmp",
        folder / "results" / ".nfs0001",
        folder / "models" / "unfinished" / "progress.safetensors",
    ]
    for path in [*old, *kept]:
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    for path in [*old, *kept[1:]]:
        os.utime(path, (time.time() - 2 * leftovers.OLD,) * 2)
    assert leftovers.remove_leftovers(store, store.done_models()) == 3
    assert [path.exists() for path in [*old, *kept]] == [False] * 3 + [True] * 3


def test_cells_that_two_grids_share_are_counted_once_everywhere(folder, whole, capsys):
    keep_grid(Store(str(folder)), "more", GRID.replace("name: damaged", "name: more").replace("0.1]", "0.1, 0.2]"), [])
    data = LiveStore(str(folder))
    assert (data.done, len(data.status.cells)) == (6, 8)
    assert "6 of 8 cells done" in repr(_strip(data)[0])
    assert main(["status", str(folder)]) == 1
    said = capsys.readouterr().out
    assert "6 of 6 cells done" in said
    assert "6 of 8 cells done" in said
    attacked(folder, "outcomes").unlink()
    assert LiveStore(str(folder)).done == 4


def test_a_store_of_before_digests_is_done_and_says_once_that_it_has_none(folder, whole, capsys):
    for path in numbers_of(folder):
        if path.suffix == ".parquet":
            pq.write_table(pq.read_table(path).replace_schema_metadata({"signsym_schema": "1"}), path)
        elif path.suffix == ".safetensors":
            save_file(load_file(path), path)
        elif path.suffix == ".json":
            path.write_text(json.dumps({k: v for k, v in json.loads(path.read_bytes()).items() if k != seal.KEY}))
    assert main(["plan", str(whole / "grid.yaml"), "--storage", str(folder)]) == 0
    assert "done already: 6 cells" in capsys.readouterr().out
    assert main(["status", str(folder)]) == 0
    assert capsys.readouterr().out.count("before files had digests") == 1


@pytest.mark.parametrize(
    "words", [["explore"], ["status"], ["report", "--out", "x"], ["audit"], ["export", "--out", "x.csv"]]
)
def test_a_folder_that_is_no_store_is_refused_and_the_stores_below_it_are_named(folder, capsys, words):
    assert main([words[0], str(folder.parent), *words[1:]]) == 2
    assert f"stores below it: {folder}" in capsys.readouterr().err


def test_failures_of_a_grid_that_cannot_be_read_are_shown_and_the_variable_is_named(folder, capsys, monkeypatch):
    monkeypatch.delenv("SIGNSYM_EXTENSIONS", raising=False)
    keep_grid(Store(str(folder)), "mine", GRID.replace("[bp, usf]", "[bp, mine]"), [])
    failure = dict.fromkeys(tables.FAILURES.names) | {"job": "j", "title": "finetune mine", "error": "ValueError: x"}
    failure |= {"traceback": "Traceback ...\nValueError: x", "host": "here"}
    Store(str(folder)).write_table("failures", "j", [failure], tables.FAILURES)
    main(["status", str(folder)])
    said = capsys.readouterr().out
    assert "failed: finetune mine on here\nTraceback ...\nValueError: x" in said
    assert "unknown rule: 'mine'" in said
    assert "SIGNSYM_EXTENSIONS" in said

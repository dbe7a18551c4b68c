"""The command line without Ray: exit statuses, and messages that say what to do next."""

from __future__ import annotations

import contextlib
import importlib
import io
import re
import shlex
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
import storerows
import torch
from rich.console import Console

from orchestrator.commands import status
from orchestrator.commands.cli import main
from orchestrator.engine import address, sweep
from orchestrator.gridfile import stored
from orchestrator.gridfile.grid import load
from orchestrator.jobs import keys
from orchestrator.plan import summary
from orchestrator.plan.compile import compile_plan
from orchestrator.plan.estimate import longest_chain
from orchestrator.store import Store, provenance, tables
from orchestrator.work import extended
from signsym_core import extensions, seal

pytestmark = pytest.mark.usefixtures("planned_here")

BROKEN = sorted((Path(__file__).parent / "broken_grids").glob("*.yaml"))


def keep_grid(store, grid):
    """Put a grid into the store as a sweep does."""
    stored.keep_grid(store, grid.name, grid.text, grid.sets)


def everything(path):
    return sorted(str(found) for found in path.rglob("*"))


@pytest.mark.parametrize("command", ["sweep", "plan"])
def test_a_broken_grid_is_refused_with_its_line_and_nothing_is_written(tmp_path, capsys, command):
    grid = tmp_path / "bad.yaml"
    grid.write_text("name: bad\nseeds: [0]\nexperiments:\n  - task: clasification\n")
    before = everything(tmp_path)
    assert main([command, str(grid), "--storage", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert f"{grid}:4" in error
    assert "did you mean 'classification'" in error
    assert everything(tmp_path) == before


def test_a_missing_grid_and_an_unknown_option_are_refused(tmp_path, capsys):
    assert main(["sweep", str(tmp_path / "none.yaml"), "--storage", str(tmp_path / "store")]) == 2
    assert "none.yaml" in capsys.readouterr().err
    with pytest.raises(SystemExit) as caught:
        main(["sweep", "grid.yaml", "--fast"])
    assert caught.value.code == 2


def test_a_misspelt_choice_is_told_the_nearest(capsys):
    for words, near in (
        (["swep", "grid.yaml"], "did you mean sweep?"),
        (["export", "store", "--out", "x.csv", "--what", "trainng"], "did you mean training?"),
        (["data", "chek", "digits"], "did you mean check?"),
        (
            ["plan", "grid.yaml", "--storge", "x"],
            "plan: error: unrecognized arguments: --storge x; did you mean --sto",
        ),
        (["zzz"], "(choose from "),
    ):
        with pytest.raises(SystemExit) as caught:
            main(words)
        error = capsys.readouterr().err
        assert (caught.value.code, near in error) == (2, True)
    assert "did you mean" not in error


@pytest.mark.parametrize("plan", [[], ["--plan"]], ids=["sweep", "plan"])
def test_an_address_where_no_ray_can_be_is_refused_at_once_and_nothing_is_written(
    tiny, tmp_path, capsys, monkeypatch, plan
):
    monkeypatch.setattr(address, "PATIENCE", 0.0)
    # Ray would ask there for many minutes.
    monkeypatch.setattr("orchestrator.engine.running.run_jobs", lambda *words: None)
    with socket.socket() as taken:
        # Nothing listens at a port that is bound and no more.
        taken.bind(("127.0.0.1", 0))
        silent = f"127.0.0.1:{taken.getsockname()[1]}"
        for at, words in (
            (silent, f"nothing answers at {silent}"),
            ("127.0.0.1:99999", "nothing answers at 127.0.0.1:99999"),
            ("wrong", "expected auto, or HOST:PORT of a Ray cluster's head, got 'wrong'"),
        ):
            command = ["sweep", str(tiny), "--storage", str(tmp_path / "store"), "--address", at, *plan]
            assert main(command) == 2
            assert words in capsys.readouterr().err
    assert not (tmp_path / "store").exists()


def test_an_address_where_something_listens_or_that_ray_looks_for_itself_passes(monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as server:
        for at in (f"127.0.0.1:{server.getsockname()[1]}", f"ray://127.0.0.1:{server.getsockname()[1]}"):
            address.check_address(at)
    for at in (None, "auto", "local", "anyscale://cluster"):
        address.check_address(at)


def test_an_address_where_something_begins_to_listen_is_waited_for(monkeypatch):
    server = socket.socket()
    server.bind(("127.0.0.1", 0))
    monkeypatch.setattr(address.time, "sleep", lambda _seconds: server.listen())
    address.check_address(f"127.0.0.1:{server.getsockname()[1]}")
    server.close()


def test_a_plan_counts_cells_and_jobs_and_writes_nothing(tiny, tmp_path, capsys):
    before = everything(tmp_path)
    assert main(["plan", str(tiny), "--storage", str(tmp_path / "store")]) == 0
    output = capsys.readouterr().out
    assert "tiny: 27 cells" in output
    assert "missing: 27 cells, 17 jobs" in output
    assert "3 fine-tuned models serve the 27 cells" in output
    assert main(["sweep", str(tiny), "--plan", "--storage", str(tmp_path / "store")]) == 0
    assert everything(tmp_path) == before


def test_settings_are_put_over_the_grid(tiny, tmp_path, capsys):
    arguments = ["plan", str(tiny), "--storage", str(tmp_path / "store"), "--set", "seeds=[0, 1]"]
    assert main(arguments) == 0
    assert "tiny: 54 cells" in capsys.readouterr().out
    assert main([*arguments, "--set", "seeds=[-1]"]) == 2
    assert "--set seeds" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["status", "plan"])
def test_how_far_the_reading_of_a_store_is_can_be_seen(tiny, tmp_path, monkeypatch, command):
    module, told = importlib.import_module(f"orchestrator.commands.{command}"), []

    @contextlib.contextmanager
    def waiting(_console, what):
        told.append(what)
        yield

    monkeypatch.setattr(module, "Lines", lambda _console: lambda *words: told.append(words))
    monkeypatch.setattr(module, "waiting", waiting)
    store = Store(str(tmp_path / "store"))
    keep_grid(store, load(tiny))
    store.save_model("f" * 64, {}, storerows.record("f" * 64))
    assert main({"status": ["status"], "plan": ["plan", str(tiny), "--storage"]}[command] + [store.uri]) < 2
    assert told[0] == ("models looked at", 0, 1)
    assert re.fullmatch("the store is read; planning (its grids|the grid)", told[-1])


@pytest.mark.parametrize("command", [["status"], ["report", "--out", "page"], ["audit"]])
def test_a_store_without_a_sweep_says_how_to_make_one(tmp_path, capsys, command):
    assert main([command[0], str(tmp_path / "none"), *command[1:]]) == 2
    assert "signsym sweep GRID --storage" in capsys.readouterr().err
    assert everything(tmp_path) == []


def test_status_counts_what_is_missing_and_names_grids_it_cannot_read(tiny, tmp_path, capsys):
    store = Store(str(tmp_path / "store"))
    keep_grid(store, load(tiny, ["seeds=[0, 1]"]))
    store.write("grids/old-123.yaml", b"name: old\nrules: [x]\n")
    assert main(["status", str(tmp_path / "store")]) == 1
    output = capsys.readouterr().out
    assert "0 of 54 cells done" in output
    assert "33 missing" in output
    assert "skipped grids/old-123.yaml" in output


@pytest.fixture
def no_ray(monkeypatch):
    """Importing Ray is an error."""
    for name in [name for name in sys.modules if name == "ray" or name.startswith("ray.")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ray", None)


@pytest.mark.slow
@pytest.mark.usefixtures("no_ray")
@pytest.mark.parametrize("path", BROKEN, ids=lambda path: path.stem)
def test_no_broken_grid_runs_or_writes_anything(tmp_path, monkeypatch, capsys, path):
    monkeypatch.chdir(tmp_path)
    for command in (["sweep", str(path)], ["sweep", str(path), "--plan"], ["plan", str(path)]):
        assert main(command) == 2
        assert f"signsym {command[0]}: {path}" in capsys.readouterr().err.replace("\n", "")
    assert everything(tmp_path) == []


@pytest.mark.usefixtures("no_ray")
def test_a_plan_of_a_sweep_needs_no_ray(tiny, tmp_path, capsys):
    assert main(["sweep", str(tiny), "--plan", "--storage", str(tmp_path / "store")]) == 0
    assert "17 jobs" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["swep"],
        ["sweep"],
        ["plan"],
        ["plan", "grid.yaml", "--stroage", "x"],
        ["plan", "grid.yaml", "--retry-failed"],
        ["sweep", "one.yaml", "two.yaml"],
        ["status"],
        ["report", "runs"],
        ["audit"],
        ["attack", "--weights", "model.pth"],
        ["sweep", "grid.yaml", "--set"],
    ],
    ids=" ".join,
)
def test_a_command_line_that_makes_no_sense_is_refused_with_its_usage(tmp_path, monkeypatch, capsys, arguments):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: signsym" in capsys.readouterr().err
    assert everything(tmp_path) == []


@pytest.mark.parametrize("command", ["plan", "sweep", "status", "report", "audit", "attack"])
def test_help_names_every_command_and_each_has_its_own(capsys, command):
    for arguments, words in ((["--help"], command), ([command, "--help"], f"usage: signsym {command}")):
        with pytest.raises(SystemExit) as caught:
            main(arguments)
        assert caught.value.code == 0
        assert words in capsys.readouterr().out


def row(output, kind):
    """Numbers of one line of the plan's table."""
    (line,) = [line for line in output.splitlines() if re.match(rf"\W*{kind}\W", line)]
    return [float(number) for number in re.findall(r"\d+(?:\.\d+)?", line)]


def test_the_plans_table_has_jobs_and_hours_of_each_kind(tiny, tmp_path, capsys):
    # Fine-tunes that take hours, on half a GPU.
    sets = ["experiments.0.resources={gpu: 0.5, cpu: 2}", "experiments.0.finetune.epochs=2000000"]
    settings = [word for value in sets for word in ("--set", value)]
    assert main(["plan", str(tiny), "--storage", str(tmp_path / "store"), *settings]) == 0
    output = capsys.readouterr().out
    plan = compile_plan(load(tiny, sets), set(), set())
    for kind, jobs in (("pretrain", 1), ("finetune", 3), ("attack", 13)):
        hours = sum(job.default_seconds for job in plan.jobs.values() if job.kind == kind) / 3600
        assert row(output, kind) == [
            jobs,
            pytest.approx(0.5 * hours, abs=0.006),
            pytest.approx(2 * hours, abs=0.006),
            0,
        ]
    assert row(output, "finetune")[1] > 1
    assert row(output, "experiment 1: classification, digits")[1:] == row(output, "all")
    assert len(plan.jobs) == row(output, "all")[0] == 17
    # Three fine-tunes for 27 cells: 24 more.
    saved = float(re.search(r"would take ([\d.]+) hours more", output)[1])
    assert saved == pytest.approx(8 * row(output, "finetune")[1], abs=0.1)
    assert "done already: 0 cells; missing: 27 cells, 17 jobs" in output
    assert "times: 0 jobs from measurements in this store" in output
    assert "17 assumed" in output
    assert f"{row(output, 'finetune')[1]:.2f} GPU hours: training in tf32 on an H100, assumed" in output


def test_the_plan_of_a_tiny_grid_is_told_in_a_unit_that_says_something(tiny, tmp_path, capsys):
    assert main(["plan", str(tiny), "--storage", str(tmp_path / "store")]) == 0
    output = capsys.readouterr().out
    plan = compile_plan(load(tiny), set(), set())
    by_job = {key: job.default_seconds for key, job in plan.jobs.items()}
    seconds = sum(by_job.values())
    assert 1 < seconds < 60
    assert "CPU seconds" in output
    assert row(output, "all") == [17, 0, pytest.approx(seconds, abs=0.06), 0]
    chain = re.search(r"longest chain of dependent jobs: ([\d.]+) seconds", output)
    assert float(chain[1]) == pytest.approx(longest_chain(plan, by_job), abs=0.06)
    told = re.findall(r"^  ([\d.]+) CPU seconds: ", output, re.MULTILINE)
    assert sum(map(float, told)) == pytest.approx(seconds, abs=0.06 * len(told))
    assert "hours" not in output


@pytest.mark.parametrize(
    ("hours", "words"),
    [
        *((0.0, "0.00 GPU hours"), (1.0, "1.00 GPU hours"), (75.234, "75.23 GPU hours"), (0.999, "59.9 GPU minutes")),
        *((1 / 60, "1.0 GPU minutes"), (0.01, "36.0 GPU seconds"), (1e-5, "0.0 GPU seconds")),
    ],
)
def test_an_amount_of_time_is_told_in_the_largest_unit_that_it_has_one_of(hours, words):
    assert summary._amount(hours, "GPU ") == words


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("seeds", "expected KEY=VALUE"),
        ("=3", "expected KEY=VALUE"),
        ("sedes=[0]", "did you mean 'seeds'"),
        ("experiments.7.rule=bp", "experiments"),
        ("experiments.0.rule=usff", "did you mean 'usf'"),
        ("experiments.0.finetune.epochs=many", "epochs"),
        ("experiments.0.attacks.0.epsilon=[2]", r"[0, 1]"),
    ],
)
def test_settings_that_do_not_fit_are_refused_by_name(tiny, tmp_path, capsys, setting, words):
    before = everything(tmp_path)
    assert main(["sweep", str(tiny), "--storage", str(tmp_path / "store"), "--set", setting]) == 2
    error = capsys.readouterr().err
    assert "--set" in error
    assert setting.partition("=")[0] in error
    assert words in error
    assert everything(tmp_path) == before


def test_later_settings_are_put_over_earlier_ones(tiny, tmp_path, capsys):
    settings = ["--set", "seeds=[0, 1]", "--set", "seeds=[0, 1, 2]", "--set", "experiments.0.rule=[bp]"]
    assert main(["plan", str(tiny), "--storage", str(tmp_path / "store"), *settings]) == 0
    assert "tiny: 27 cells" in capsys.readouterr().out


@pytest.mark.parametrize("command", ["plan", "sweep"])
def test_a_missing_weights_file_is_refused_before_anything_is_written(tiny, tmp_path, capsys, command):
    before = everything(tmp_path)
    place = tmp_path / "none[1].pth"
    setting = f"experiments.0.weights={place}"
    assert main([command, str(tiny), "--storage", str(tmp_path / "store"), "--set", setting]) == 2
    assert f"weights file {place} cannot be read" in capsys.readouterr().err.replace("\n", "")
    assert everything(tmp_path) == before


def test_a_damaged_weights_file_of_a_store_is_refused_before_anything_is_written(tiny, tmp_path, capsys):
    data = seal.sealed(safetensors.numpy.save({"weight": np.ones(9)}, metadata={seal.KEY: seal.BLANK}))
    data[-1] ^= 1
    (tmp_path / "model.safetensors").write_bytes(data)
    before = everything(tmp_path)
    setting = f"experiments.0.weights={tmp_path / 'model.safetensors'}"
    assert main(["plan", str(tiny), "--storage", str(tmp_path / "store"), "--set", setting]) == 2
    assert "model.safetensors is damaged" in capsys.readouterr().err.replace("\n", "")
    assert everything(tmp_path) == before


@pytest.mark.parametrize("command", ["plan", "sweep"])
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "directory"),
        (lambda path: path.write_bytes(b"\xff\xfe"), "UTF-8"),
        (lambda path: path.write_bytes(b""), "expected"),
        (lambda path: None, "grid.yaml"),
    ],
    ids=["a directory", "binary", "empty", "missing"],
)
def test_what_is_no_grid_file_is_refused_with_its_name(tmp_path, capsys, command, make, words):
    grid = tmp_path / "grid.yaml"
    make(grid)
    before = everything(tmp_path)
    assert main([command, str(grid), "--storage", str(tmp_path / "store")]) == 2
    error = capsys.readouterr().err
    assert f"signsym {command}: {grid}" in error
    assert words in error
    assert everything(tmp_path) == before


@pytest.mark.parametrize("command", [["plan", "GRID", "--storage"], ["sweep", "GRID", "--storage"], ["status"]])
def test_a_storage_that_cannot_be_opened_is_named(tiny, capsys, command):
    words = [str(tiny) if word == "GRID" else word for word in command]
    assert main([*words, "nosuch://bucket/x"]) == 2
    assert "storage 'nosuch://bucket/x' cannot be opened" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["plan", "GRID", "--storage"], ["sweep", "GRID", "--storage"], ["status"]])
def test_a_storage_that_is_a_file_is_refused(tiny, tmp_path, capsys, command):
    (tmp_path / "file").write_text("no store")
    assert main([*(str(tiny) if word == "GRID" else word for word in command), str(tmp_path / "file")]) == 2
    assert f"storage '{tmp_path / 'file'}': expected a folder, got a file" in capsys.readouterr().err


def test_the_place_of_a_store_is_printed_as_it_is(tmp_path, capsys):
    place = tmp_path / "runs[red]one[/red]"
    assert main(["status", str(place)]) == 2
    assert f"--storage {shlex.quote(str(place))}" in capsys.readouterr().err


def test_status_of_results_without_a_grid_says_that_nothing_is_known_to_be_planned(tmp_path, capsys):
    store = Store(str(tmp_path / "copied results"))
    storerows.put(store, "job", "cell")
    assert main(["status", store.uri]) == 0
    told = f"no grid that can be read is in {store.uri}, so that it is unknown what was planned; to look at results"
    assert f"{told}: signsym explore {shlex.quote(store.uri)}" in capsys.readouterr().out


def test_status_shows_failures_and_what_they_block(tiny, tmp_path, capsys):
    store, grid = Store(str(tmp_path / "store")), load(tiny)
    keep_grid(store, grid)
    plan = compile_plan(grid, set(), set())
    key = next(key for key, job in plan.jobs.items() if job.kind == "finetune" and " usf " in job.title)
    failure = {"job": key, "title": plan.jobs[key].title, "attempt": 3, "error": "ValueError: [/no]", "host": "here"}
    failure |= {"traceback": "Traceback\n  ValueError: float[n, channels] [/no]\n", "failed_at": datetime.now(UTC)}
    store.write_table("failures", key, [failure], tables.FAILURES)
    assert main(["status", str(tmp_path / "store")]) == 1
    output = capsys.readouterr().out
    # The clean job, and two gradients of two attacks.
    assert "jobs: 0 running, 1 failed, 5 blocked, 11 missing" in output
    assert f"failed: {plan.jobs[key].title} on here" in output
    assert "repeat the command of the sweep with --retry-failed" in output
    assert "ValueError: float[n, channels] [/no]" in output


def test_status_prints_each_error_once_with_the_jobs_that_have_it(tiny, tmp_path, capsys):
    store, grid = Store(str(tmp_path / "store")), load(tiny)
    keep_grid(store, grid)
    jobs = compile_plan(grid, set(), set()).jobs.values()
    assert len(jobs) == 17
    for number, job in enumerate(jobs):
        failure = dict.fromkeys(tables.FAILURES.names) | {"job": job.key, "title": job.title, "host": "here"}
        failure |= {"error": f"ValueError: {number // 13}", "traceback": f"Traceback\nValueError: {number // 13}\n"}
        store.write_table("failures", job.key, [failure], tables.FAILURES)
    assert main(["status", str(tmp_path / "store")]) == 1
    output = capsys.readouterr().out
    assert [output.count(f"Traceback\nValueError: {which}\n") for which in (0, 1)] == [1, 1]
    assert output.count(" on here\n") == 14
    assert "  failed: 3 more by the same error; all are on the page Runs of signsym explore\nTraceback" in output


def test_status_of_very_many_jobs_stays_short(tiny, tmp_path, capsys, monkeypatch):
    store, grid = Store(str(tmp_path / "store")), load(tiny)
    keep_grid(store, grid)
    keys_of_jobs = list(compile_plan(grid, set(), set()).jobs)
    # 17 running jobs, and as many failed ones that no grid knows: one error of three, and fourteen of one each.
    trials = [{"job": key, "title": f"job {key}", "seconds": 1.0} for key in keys_of_jobs]
    monkeypatch.setattr(status, "alive", lambda _: [{"running": trials, "host": "here"}])
    monkeypatch.setattr(status, "RUNNING", 5)
    for number in range(17):
        failure = dict.fromkeys(tables.FAILURES.names) | {"job": f"gone{number}", "title": f"job {number}"}
        failure |= {"host": "here", "error": f"DeadError: process {number}" if number < 14 else "OSError: full"}
        store.write_table("failures", failure["job"], [failure], tables.FAILURES)
    assert main(["status", str(tmp_path / "store")]) == 1
    output = capsys.readouterr().out
    assert output.count("so far, sweep on here") == 5
    assert "  running: 12 more; all are on the page Runs of signsym explore" in output
    # The error of most jobs comes first.
    assert output.index("OSError: full") < output.index("DeadError")
    assert len(re.findall(r"^(?:OSError|DeadError)", output, re.M)) == status.ERRORS
    assert "  failed: 5 more by 5 other errors; all are on the page Runs of signsym explore" in output


def test_very_many_skipped_files_are_counted():
    sink = io.StringIO()
    skipped = {f"results/{number:03}.parquet": "torn" for number in range(sweep.SKIPPED + 7)}
    sweep.show_skipped(skipped, Console(file=sink, width=200))
    lines = sink.getvalue().splitlines()
    assert lines[0] == "skipped results/000.parquet: torn"
    assert lines[sweep.SKIPPED :] == ["skipped 7 files more; signsym status --verify names all"]


@pytest.mark.usefixtures("no_ray")
def test_a_sweep_says_what_was_computed_before_a_module_of_the_users_was_edited(tiny, tmp_path, capsys, monkeypatch):
    store, plan = Store(str(tmp_path / "store")), compile_plan(load(tiny), set(), set())
    attacks = [job for job in plan.jobs.values() if job.kind == "attack"]
    for job, versions in zip(attacks, ['{"extension mine": "old"}', *(len(attacks) - 1) * ["{}"]], strict=True):
        cells = [cell for cell, *_ in keys.cells(job.spec)]
        storerows.put(store, job.key, *cells, versions=versions)
    (model,) = attacks[0].parents
    record = storerows.record(model) | {"versions": '{"extension mine": "new"}'}
    store.save_model(model, {"weight": torch.zeros(1)}, record)
    texts = {"mine": "new"}
    monkeypatch.setattr(extensions, "digests", lambda: texts)
    assert main(["sweep", str(tiny), "--storage", store.uri]) == 0
    count = len([*keys.cells(attacks[0].spec)])
    edited = "mine (SIGNSYM_EXTENSIONS) was edited since {} of the cells and {} of the fine-tunes that are done"
    assert edited.format(count, 0) in capsys.readouterr().out
    texts["mine"] = "newer"
    main(["sweep", str(tiny), "--storage", store.uri])
    assert edited.format(count, 1) in capsys.readouterr().out
    texts["mine"] = "old"
    store.save_model(model, {"weight": torch.zeros(1)}, storerows.record(model))
    main(["sweep", str(tiny), "--storage", store.uri])
    assert "SIGNSYM_EXTENSIONS" not in capsys.readouterr().out


def test_results_name_the_text_of_the_modules_of_their_own_members(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text("")
    (tmp_path / "packed").mkdir()
    (tmp_path / "packed/__init__.py").write_text("")
    (tmp_path / "packed/inner.py").write_text("")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("SIGNSYM_EXTENSIONS", "mine, packed.inner")
    # Other tests have modules of these names.
    extensions.digest.cache_clear()
    before = extensions.digests()
    assert set(before) == {"mine", "packed"}
    monkeypatch.setattr(extended, "_modules", lambda: {"own-rule": "mine", "own-attack": "packed"})
    rule, attack = ({"name": f"own-{family}", "parameters": {}} for family in ("rule", "attack"))
    layers = {"rule": {"name": "mixed", "parameters": {"layers": {"*": rule}}}}
    assert extended.with_extensions('{"torch": "2"}', {"rule": {"name": "usf"}}) == '{"torch": "2"}'
    trained = {"versions": extended.with_extensions('{"torch": "2"}', layers)}
    assert trained["versions"] == f'{{"extension mine": "{before["mine"]}", "torch": "2"}}'
    both = extended.with_extensions("{}", layers, {"finetune": {"adversarial": attack}}, models=(trained,))
    expected = {"extension mine": before["mine"], "extension packed": before["packed"]}
    assert provenance.extended(both) == expected | {"trained with extension mine": before["mine"]}
    # An edit anywhere in a package is another text.
    extensions.digest.cache_clear()
    (tmp_path / "packed/inner.py").write_text("x = 1")
    after = extensions.digests()
    extensions.digest.cache_clear()
    assert after["mine"] == before["mine"]
    assert after["packed"] != before["packed"]


def test_status_of_a_sweep_with_settings_counts_under_them(tiny, tmp_path, capsys):
    store = Store(str(tmp_path / "store"))
    keep_grid(store, load(tiny))
    keep_grid(store, load(tiny, ["experiments.0.rule=[bp]"]))
    assert main(["status", str(tmp_path / "store")]) == 1
    output = capsys.readouterr().out
    assert "0 of 27 cells done" in output
    assert "0 of 9 cells done" in output


@pytest.mark.usefixtures("no_ray")
def test_a_sweep_whose_jobs_all_failed_before_says_how_to_retry_them(tiny, tmp_path, capsys, monkeypatch):
    place, setting = tmp_path / "runs[old]", "experiments.0.rule=[bp, usf]"
    words = ["sweep", str(tiny), "--storage", str(place), "--set", setting]
    plan = compile_plan(load(tiny, [setting]), set(), set())
    (pretrain,) = [job for job in plan.jobs.values() if job.kind == "pretrain"]
    failure = {"job": pretrain.key, "title": pretrain.title, "attempt": 3, "error": "ValueError: [/no]", "host": "h"}
    failure |= {"traceback": "Traceback", "failed_at": datetime.now(UTC)}
    store, attack = Store(str(place)), [job for job in plan.jobs.values() if job.spec.get("attack")][-1]
    # The same attack failed on other cells, before the grid was edited; and a job of another grid did.
    others = {"edited": keys.work(attack.key, attack.spec), "foreign": "other"}
    # And on cells that an older grid of the store still lacks, of which this one has none.
    older = load(tiny, [setting, "experiments.0.attacks.0.epsilon=[0.3]"])
    keep_grid(store, older)
    of_older = next(
        job
        for job in compile_plan(older, set(), set()).jobs.values()
        if job.kind == "attack" and keys.work(job.key, job.spec) == others["edited"]
    )
    others[of_older.key] = others["edited"]
    # A damaged file of results is none, also of a job that waits for a failed one.
    store.write(f"results/{attack.key}.parquet", b"torn")
    for key, work in {pretrain.key: None, **others}.items():
        store.write_table("failures", key, [failure | {"job": key, "work": work}], tables.FAILURES)
    monkeypatch.setattr(sys, "argv", ["signsym", *words])
    assert main(words) == 1
    assert set(store.names("failures", ".parquet")) == {
        f"{key}.parquet" for key in (pretrain.key, of_older.key, "foreign")
    }
    output = capsys.readouterr().out
    assert "18 of 18 cells have no result" in output
    assert f"0 jobs to run (none), {len(plan.jobs)} left out that failed before or wait for one that did" in output
    assert f"{pretrain.title}: ValueError: [/no]" in output
    assert f"Tracebacks: signsym status {shlex.quote(str(place))}; to retry them:" in output
    assert f"results in {place}" in output
    assert shlex.join(["signsym", *words, "--retry-failed"]) in output
    assert main(["plan", *words[1:]]) == 0
    told = (
        f"{len(plan.jobs)} of the missing jobs failed before or wait for one that did: without --retry-failed a sweep"
    )
    assert f"{told} leaves them out" in capsys.readouterr().out
    # What a batch script that started the sweep says instead.
    monkeypatch.setenv("SIGNSYM_COMMAND", "sbatch cluster/slurm.sh 'my grid.yaml' --retry-failed")
    assert sweep.command() == "sbatch cluster/slurm.sh 'my grid.yaml' --retry-failed"
    assert sweep.command("--retry-failed") == sweep.command()

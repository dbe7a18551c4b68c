"""The command line without Ray: exit statuses, and messages that say what to do next."""

from __future__ import annotations

import pytest

from orchestrator.cli import main
from orchestrator.store import Store


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


@pytest.mark.parametrize("command", [["status"], ["report", "--out", "page"]])
def test_a_store_without_a_sweep_says_how_to_make_one(tmp_path, capsys, command):
    assert main([command[0], str(tmp_path / "none"), *command[1:]]) == 2
    assert "signsym sweep GRID --storage" in capsys.readouterr().err
    assert everything(tmp_path) == []


def test_status_counts_what_is_missing_and_names_grids_it_cannot_read(tiny, tmp_path, capsys):
    from orchestrator.grid import load
    from orchestrator.sweeping import keep_grid

    store = Store(str(tmp_path / "store"))
    keep_grid(store, load(tiny, ["seeds=[0, 1]"]))
    store.write("grids/old-123.yaml", b"name: old\nrules: [x]\n")
    assert main(["status", str(tmp_path / "store")]) == 1
    output = capsys.readouterr().out
    assert "0 of 54 cells done" in output
    assert "33 missing" in output
    assert "skipped grids/old-123.yaml" in output

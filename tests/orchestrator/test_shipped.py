"""How the command line finds a grid: a path, a grid beside the packages, or the name of a shipped one."""

from __future__ import annotations

import pytest
from sweeps import ROOT

from orchestrator.commands.cli import main
from orchestrator.gridfile.nodes import GridError
from orchestrator.gridfile.shipped import grid_path, shipped_grids


def test_a_shipped_grid_has_three_names_and_a_file_of_ones_own_goes_before_it(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("quickstart", "quickstart.yaml", "grids/quickstart.yaml"):
        assert grid_path(name).samefile(ROOT / "grids/quickstart.yaml")
    (tmp_path / "quickstart").mkdir()
    assert grid_path("quickstart").samefile(ROOT / "grids/quickstart.yaml")
    (tmp_path / "quickstart.yaml").touch()
    assert grid_path("quickstart.yaml").samefile(tmp_path / "quickstart.yaml")


def test_a_name_that_no_shipped_grid_has_is_refused_with_the_nearest(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(GridError, match="unknown grid: 'quickstrat', did you mean 'quickstart'"):
        grid_path("quickstrat")
    assert main(["plan", "quickstrat"]) == 2
    assert "did you mean 'quickstart'" in capsys.readouterr().err
    assert str(grid_path("mine/none.yaml")) == "mine/none.yaml"


def test_each_shipped_grid_is_listed_with_what_it_is(capsys):
    assert main(["grids"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == list(shipped_grids()) == sorted(shipped_grids())
    assert any("What `signsym audit` needs" in line for line in lines if line.startswith("audit "))
    assert all(len(line.split()) > 5 for line in lines)

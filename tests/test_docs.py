"""What the documentation shows runs."""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path

import pytest
from sweeps import ONE

import signsym_core as ss
from orchestrator.commands.arguments import parser
from orchestrator.gridfile.grid import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


@pytest.mark.slow
@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python") and "numbers" not in p.name], ids=lambda p: p.stem
)
def test_python_runs(page, monkeypatch):
    # Dataclasses look up their module, so the code gets one.
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    # What a page registers is gone with its test.
    for registry in (ss.ATTACKS, ss.BACKBONES, ss.DATASETS, ss.RULES, ss.TASKS):
        monkeypatch.setattr(registry, "_members", dict(registry._members))
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), module.__dict__)


@pytest.mark.parametrize("page", [p for p in PAGES if p.stem.startswith("add-a")], ids=lambda p: p.stem)
def test_a_guide_puts_all_that_it_shows_through_the_suite(page):
    code = "\n".join(blocks(page, "python"))
    shown = set(re.findall(r"^class (\w+)\((?:\w*Rule|Attack|DataSource|Backbone)\):", code, re.M))
    assert shown
    assert shown == set(re.findall(r"^ *check_\w+\((\w+)\(", code, re.M))


def test_commands_that_pages_name_exist():
    known = set(re.search(r"\{([\w,]+)\}", parser().format_usage())[1].split(","))
    for page in PAGES:
        named = set(re.findall(r"(?:`|^)signsym ([a-z]+)", page.read_text(), re.M))
        assert named <= known, (page.name, named - known)


@pytest.mark.parametrize("page", [p for p in PAGES if blocks(p, "yaml")], ids=lambda p: p.stem)
def test_grids_load(page, tmp_path):
    for text in blocks(page, "yaml"):
        (tmp_path / "grid.yaml").write_text(text)
        assert len(load(tmp_path / "grid.yaml")) > 0


@pytest.mark.parametrize("grid", sorted((ROOT / "grids").glob("*.yaml")), ids=lambda p: p.stem)
def test_shipped_grids_load(grid):
    assert len(load(grid)) > 0


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page):
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target


@pytest.mark.slow
@pytest.mark.usefixtures("planned_here")
def test_the_tour_runs_from_top_to_bottom_and_its_answers_are_those_that_it_tells(tmp_path, monkeypatch, capsys):
    notebook = json.loads((ROOT / "docs/tour.ipynb").read_text())
    assert not any(cell.get("outputs") for cell in notebook["cells"]), "a notebook is kept without its outputs"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MPLBACKEND", "agg")
    for name, value in ONE.items():
        monkeypatch.setenv(name, value)
    names: dict[str, object] = {}
    for number, cell in enumerate(notebook["cells"]):
        if cell["cell_type"] == "code":
            exec(compile("".join(cell["source"]), f"tour.ipynb, cell {number}", "exec"), names)
    assert "masked" in names["verdict"].words
    exact = names["scores"].xs("exact", level="gradient")
    assert len(names["scores"]) == 4
    assert (exact[0.0] > exact[0.1]).all()
    assert "Complete: all" in capsys.readouterr().out


def test_the_index_leads_to_every_page():
    linked = set(re.findall(r"\]\(([^)#]+)\)", (ROOT / "docs/index.md").read_text()))
    pages = {path.relative_to(ROOT / "docs").as_posix() for path in (ROOT / "docs").rglob("*.md")}
    assert pages - {"index.md"} <= linked

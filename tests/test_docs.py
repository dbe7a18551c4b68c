"""What the documentation shows runs."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from orchestrator.gridfile.grid import load

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page, language):
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(), re.S)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if blocks(p, "python") and "numbers" not in p.name], ids=lambda p: p.stem
)
def test_python_runs(page, monkeypatch):
    # Dataclasses look up their module, so the code gets one.
    module = types.ModuleType(f"page_{page.stem.replace('-', '_')}")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for code in blocks(page, "python"):
        exec(compile(code, str(page), "exec"), module.__dict__)


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

"""What the documentation says of the study is what its store says."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path

import pytest

from orchestrator.results.live_store import LiveStore

ROOT = Path(__file__).resolve().parents[1]
_SPEC = importlib.util.spec_from_file_location("study", ROOT / "docs/study/make.py")
study = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(study)


@pytest.fixture(scope="module")
def tables(tmp_path_factory):
    """Every table of the study, computed from the store that is shipped."""
    return study.tables(LiveStore(str(study.store(tmp_path_factory.mktemp("study")))))


@pytest.mark.slow
@pytest.mark.parametrize("page", study.PAGES, ids=lambda page: page.stem)
def test_every_table_is_the_one_that_the_store_gives(page, tables):
    text = page.read_text()
    assert re.findall(r"<!-- begin: (\w+) -->", text), "the page has no table of the study"
    assert study.written(text, tables) == text, "run: python docs/study/make.py"


@pytest.mark.slow
def test_a_changed_digit_is_noticed(tables):
    text = study.PAGES[1].read_text()
    changed = re.sub(r"(\| uSF \| .*?)(\d)\.", lambda m: f"{m[1]}{(int(m[2]) + 1) % 10}.", text, count=1)
    assert changed != text
    assert study.written(changed, tables) != changed


def test_the_shipped_grid_is_the_one_that_was_run(tmp_path):
    kept = next((study.store(tmp_path) / "grids").glob("study-*.yaml")).read_text()
    shipped = "".join(
        line for line in (ROOT / "grids/study.yaml").read_text().splitlines(keepends=True) if not line.startswith("#")
    )
    assert kept.strip() == shipped.strip()

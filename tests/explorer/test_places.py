"""The same pages of a store on every kind of place."""

from __future__ import annotations

from pathlib import Path

import pytest
from stores import block, fill, page

from orchestrator.drawing.blocks import Figure, Pictures
from orchestrator.reports.static import write_report
from orchestrator.results.live_store import LiveStore


def test_pages_are_those_of_a_folder_and_results_appear(uri, tmp_path_factory):
    folder = fill(tmp_path_factory.mktemp("beside") / "store", seeds=(0,))
    fill(uri, seeds=(0,))
    data = LiveStore(uri)
    for search in ("", "?p=gap"):
        assert block(page(data, search), Figure).table.rows == block(page(folder, search), Figure).table.rows
    assert len(block(page(data, "?p=cell&c=job-usf-exact-0-0-0.1"), Pictures).triples) == 4
    fill(uri, seeds=(1,), draw=1)
    assert data.refresh()
    assert {row["seeds"] for row in block(page(data), Figure).table.rows} == {2}


@pytest.mark.slow
def test_a_report_is_written_from_there(uri, tmp_path_factory, monkeypatch):
    # The index, a page of a task and that of a cell read everything that is read; test_static.py has all pages.
    monkeypatch.setattr("orchestrator.reports.static._STATIC", ("curves",))
    monkeypatch.setattr("orchestrator.reports.static.MOST_CELLS", 1)
    fill(uri, seeds=(0,))
    out: Path = tmp_path_factory.mktemp("report")
    write_report(LiveStore(uri), out, title="there")
    assert "uSF" in (out / "curves-classification.html").read_text()
    assert len(list((out / "cells").glob("*.html"))) == 1

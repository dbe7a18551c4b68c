"""The report: the same pages as files, figures and tables for a paper, and no other host."""

from __future__ import annotations

import csv
import json
import re
import sys

import pytest
from browser import look, opened
from stores import fill, keep_grid

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Page, Words
from orchestrator.reports import static
from orchestrator.reports.static import write_report
from orchestrator.results.live_store import LiveStore
from orchestrator.results.view import PageView

pytestmark = pytest.mark.slow

HOSTILE = "</script><script>alert(1)</script>$x_{y}$"


@pytest.fixture(scope="module")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    keep_grid(fill(folder / "store"))
    assert main(["report", str(folder / "store"), "--out", str(folder / "out")]) == 0
    return folder / "out"


def test_every_page_opens_from_disk_and_asks_no_host(out, chromium):
    with opened(chromium) as tab:
        for page in [*sorted(out.glob("*.html")), next((out / "cells").glob("*.html"))]:
            look(tab, page.as_uri())
            assert tab.locator("text=Share chart").count() == 0
            assert tab.locator(".modebar [data-title*=hare]").count() == 0
            assert tab.locator(".js-plotly-plot").count() == tab.locator('[role="img"][aria-label]').count()
        assert tab.wrong == []
        assert [url for url in tab.seen if not url.startswith(("file:", "data:", "blob:"))] == []


def test_figures_are_svg_and_pdf_in_two_widths_with_fonts_and_their_numbers(out):
    stems = {path.name for path in (out / "figures").iterdir()}
    for ending in ("-3.3in.svg", "-3.3in.pdf", "-6.75in.svg", "-6.75in.pdf", ".csv", ".json"):
        assert f"curves-classification-curves{ending}" in stems
    pdf = (out / "figures/curves-classification-curves-3.3in.pdf").read_bytes()
    assert pdf.startswith(b"%PDF")
    assert b"/FontFile2" in pdf
    assert b"/Type3" not in pdf
    view = json.loads((out / "figures/curves-classification-curves.json").read_text())["view"]
    assert view.startswith("?")
    rows = list(csv.DictReader((out / "figures/curves-classification-curves.csv").open()))
    table = list(csv.DictReader((out / "tables/curves-classification-curves.csv").open()))
    assert [row["value"] for row in rows] == [row["score"] for row in table]


def test_the_papers_figures_need_no_browser(tmp_path, monkeypatch):
    for name in ("kaleido", "choreographer", "playwright"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setenv("PATH", "")
    # All figures are drawn by the same function.
    monkeypatch.setattr("orchestrator.reports.static._STATIC", ("curves",))
    monkeypatch.setattr("orchestrator.reports.static.MOST_CELLS", 1)
    write_report(LiveStore(str(fill(tmp_path / "store", seeds=(0,)))), tmp_path / "out", title="t")
    assert list((tmp_path / "out/figures").glob("*.pdf"))


def test_pages_name_their_task_where_there_are_several(out):
    assert re.findall(r">(Curves[^<]*)<", (out / "gap-classification.html").read_text()) == ["Curves"]
    titles = static._titles(["classification", "hashing"])
    assert titles["hashing", "curves"] == "Curves: hashing"


def test_tables_are_latex_and_csv(out):
    latex = (out / "tables/tables-classification-table.tex").read_text()
    assert latex.count("\\begin{tabular}") == latex.count("\\end{tabular}") == 1
    assert "90.62 [75.8, 96.8]" in latex
    assert (out / "tables/flags-classification-flags-rows.csv").exists()
    assert json.loads((out / "provenance.json").read_text())["cells"] == 24


def test_hostile_names_stay_text_in_html_json_svg_and_latex(tmp_path, monkeypatch):
    monkeypatch.setattr("orchestrator.reports.static.MOST_CELLS", 1)
    folder = fill(tmp_path / "store", seeds=(0,), dataset=HOSTILE, git=HOSTILE)
    write_report(LiveStore(str(folder)), tmp_path / "out", title=HOSTILE, command=HOSTILE)
    for path in (tmp_path / "out").rglob("*.html"):
        text = path.read_text()
        assert "<script>alert" not in text
        assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert "$x_{y}$" not in (tmp_path / "out/tables/tables-classification-table.tex").read_text()


def test_a_click_on_a_point_or_a_row_opens_the_cell_that_has_a_page(out, chromium):
    cells = {path.name for path in (out / "cells").iterdir()}
    with opened(chromium) as tab:
        for page in ("curves", "gap"):
            look(tab, (out / f"{page}-classification.html").as_uri())
            keys = tab.evaluate("Object.keys(cells)")
            assert {f"{key[:16]}.html" for key in keys} == cells
            click = """key => document.querySelector('.js-plotly-plot').emit('plotly_click', {points: [
                {customdata: key}]})"""
            tab.evaluate(click, "another")
            tab.evaluate(click, None)
            assert tab.url.endswith(f"{page}-classification.html")
            tab.evaluate(click, keys[0])
            tab.wait_for_url(f"**/cells/{keys[0][:16]}.html")
            tab.wait_for_selector("text=Where it comes from")
            look(tab, (out / f"{page}-classification.html").as_uri())
            tab.click("summary")
            tab.locator(".rows a").first.click()
            tab.wait_for_url("**/cells/**")
            tab.wait_for_selector("text=Where it comes from")
        assert tab.wrong == []


def test_rows_of_tables_stand_apart(out, chromium):
    with opened(chromium) as tab:
        look(tab, (out / "curves-classification.html").as_uri())
        tab.click("summary")
        gap = "getComputedStyle(document.querySelector('.rows td')).paddingRight"
        assert float(tab.evaluate(gap).removesuffix("px")) >= 5


def test_a_page_is_read_once_and_links_the_numbers_of_its_figures(out):
    for page in ("curves", "gap", "tables"):
        assert (out / f"{page}-classification.html").read_text().count("<h2>How to read</h2>") == 1
    text = (out / "gap-classification.html").read_text()
    for stem in ("gap", "gap-3"):
        for kind in ("csv", "json"):
            assert f'href="figures/gap-classification-{stem}.{kind}"' in text
    assert json.loads((out / "figures/gap-classification-gap-3.json").read_text())["view"].endswith("vs=exact")


@pytest.mark.usefixtures("undrawn")
def test_the_gap_page_has_all_its_parts_and_each_answer_once(tmp_path, monkeypatch):
    # A page's parts are of two panels here, so that few networks and figures show what many do.
    monkeypatch.setattr("orchestrator.drawing.facets.MOST", 2)
    monkeypatch.setattr("orchestrator.reports.static._STATIC", ("gap",))
    monkeypatch.setattr("orchestrator.reports.static.MOST_CELLS", 1)
    for number in range(3):
        fill(tmp_path / "store", seeds=(0,), images=10, draw=number, backbone=f"net{number}")
    write_report(LiveStore(str(tmp_path / "store")), tmp_path / "out", title="t")
    text = (tmp_path / "out/gap-classification.html").read_text()
    tables = {path.stem: list(csv.DictReader(path.open())) for path in (tmp_path / "out/tables").glob("gap-*.csv")}
    answers = {stem: tables.pop(stem) for stem in list(tables) if "answers" in stem}
    assert {row["backbone"] for rows in tables.values() for row in rows} == {"net0", "net1", "net2"}
    # A table of answers for each part, and none for the heat map and the gaps to the exact gradient.
    assert sorted(row["model"] for rows in answers.values() for row in rows if row["rule"] == "uSF") == [
        f"net{number} / digits" for number in range(3)
    ]
    assert text.count("Worst case over attacks at ε") == 2 * 3
    assert "Nothing to compare" not in text
    monkeypatch.setattr("orchestrator.reports.static.MOST_PARTS", 2)
    write_report(LiveStore(str(tmp_path / "store")), tmp_path / "few", title="t")
    assert "The first 2 of 3 parts are here" in (tmp_path / "few/gap-classification.html").read_text()


def test_an_empty_store_says_what_to_run(tmp_path):
    page = write_report(LiveStore(str(tmp_path / "store")), tmp_path / "out", title="t")
    assert "signsym sweep quickstart" in page.read_text()


def test_a_problem_of_several_parts_is_told_once(tmp_path, monkeypatch):
    each = iter([["one", "two"], ["two"], ["two", "three"], ["one"]])
    monkeypatch.setattr(static, "_variants", lambda _data, view: [view] * 4)
    monkeypatch.setattr(
        static.pages,
        "build",
        lambda _context: Page(title="t", blocks=[Words(title="Problems", sentences=next(each), tone="warning")]),
    )
    data = LiveStore(str(fill(tmp_path / "store", seeds=(0,), images=10)))
    found = static._page(data, PageView(task="classification"), "t").blocks
    assert [block.sentences for block in found] == [["one", "two"], ["three"]]

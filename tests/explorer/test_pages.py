"""The paper's tables, the flags, the cell and the size of a page."""

from __future__ import annotations

import time

import pytest
import yaml
from stores import GRID, block, fill, keep_grid, page

from orchestrator.drawing.blocks import Facts, Figure, Matrix, Words
from orchestrator.drawing.panels import BOTTOM, TITLE_LETTERS, TITLE_LINE, TITLES, TOP, Panels
from orchestrator.explorer.app import make_app
from orchestrator.gridfile.grid import load
from orchestrator.pages.paper_tables import PRESETS
from orchestrator.plan.compile import compile_plan
from orchestrator.results.flags import CHECKS
from orchestrator.results.live_store import LiveStore
from orchestrator.results.paper_values import printed
from orchestrator.results.rerun import one_cell
from signsym_core.statistics.intervals import wilson


def test_the_papers_values_stand_with_the_interval_of_32_images_which_is_said_to_be_inferred(tmp_path):
    found = page(fill(tmp_path / "store", attack="none"), "?p=tables&t=1")
    entries = [entry for _, row in block(found, Matrix).rows for entry in row]
    lo, hi = wilson(29, 32)
    assert any(f"paper 90.62 [{100 * lo:.1f}, {100 * hi:.1f}]" in entry.lines for entry in entries)
    reading = " ".join(found.blocks[-1].sentences)
    assert "n = 32" in reading
    assert "inferred from the digits, not stated" in reading


@pytest.mark.parametrize("name", ["1", "2", "3", "4"])
def test_every_printed_number_is_in_its_table(tmp_path, name):
    folder = fill(tmp_path / "store")
    matrix = block(page(folder, f"?p=tables&t={name}"), Matrix)
    assert matrix.title.startswith(PRESETS[name].title)
    shown = [line for _, row in matrix.rows for entry in row for line in entry.lines if line.startswith("paper")]
    assert len(shown) == sum(place[0] == name for place in printed())


def test_flags_are_raised_on_the_curve_and_told_with_their_evidence(tmp_path):
    folder = fill(tmp_path / "store", images=300)
    verdicts, matrix = (each for each in page(folder, "?p=flags").blocks if isinstance(each, Matrix))
    said = {names[0]: entries[0].lines[0] for names, entries in verdicts.rows}
    assert said["uSF"].startswith("masked gradient (by 4")
    # Its own backward pass is autograd's, which no probe has to show.
    assert "undecided (missing: T1" in said["BP"]
    at = 1 + list(CHECKS).index("exact_gradient_breaks")
    by_line = {(names[0], names[3]): row[at] for names, row in matrix.rows}
    assert by_line["uSF", "feedback"].state == "raised"
    assert "exact gradient" in by_line["uSF", "feedback"].about
    assert by_line["BP", "feedback"].state == "fine"
    assert by_line["uSF", "exact"].lines == ["–"]
    rows = block(page(folder), Figure).table.rows
    flagged = {(row["rule"], row["gradient"], row["epsilon"]) for row in rows if row["flags"]}
    assert ("uSF", "feedback", "0.1") in flagged
    assert not {line for line in flagged if line[1] == "exact"}


def test_a_verdict_names_what_raised_it_a_line_for_each(tmp_path):
    verdicts = block(page(fill(tmp_path / "store", images=300), "?p=flags"), Matrix)
    raised = {names[0]: entries[1].lines for names, entries in verdicts.rows}
    assert any(line.startswith("G1 exact gradient breaks: own feedback") for line in raised["uSF"])
    assert "G1 exact gradient breaks" in page(tmp_path / "store", "?p=flags").blocks[-2].header
    assert raised["BP"] == ["–"]


def test_without_a_cell_those_of_the_filter_can_be_chosen(tmp_path):
    folder = fill(tmp_path / "store")
    matrix = block(page(folder, "?p=cell&r=usf&g=exact"), Matrix)
    ((names, entries),) = matrix.rows
    assert names == ["uSF", "smallcnn / digits", "pgd", "exact"]
    last = dict(zip(matrix.header[4:], entries, strict=True))["ε 0.1"]
    found = page(folder, last.search)
    facts = dict(fact for each in found.blocks if isinstance(each, Facts) for fact in each.facts)
    assert facts["ε"].startswith("0.1 ")
    assert f"{last.lines[0]} %" in str(facts)
    fill(folder, {("bp", "exact"): {0.1: 0.5}}, backbone="other")
    assert block(page(folder, "?p=cell&r=usf&b=other"), Words).title == "Nothing fits the filter"


def test_a_cell_has_its_provenance_and_counts_both_ways(tmp_path):
    folder = fill(tmp_path / "store")
    facts = dict(
        pair
        for found in page(folder, "?p=cell&c=job-usf-exact-1-0-0.1").blocks
        if isinstance(found, Facts)
        for pair in found.facts
    )
    assert facts["attack job"] == "job-usf-exact-1-0"
    assert facts["code"] == "abc"
    both = [facts[name].split(" ")[0] for name in facts if "BP" in name and ("robust" in name) and "under" in name]
    assert sum(map(int, both)) < 180


def test_the_grid_of_one_cell_has_that_cells_key(tmp_path):
    folder = tmp_path / "store"
    plan = compile_plan(keep_grid(folder), set(), set())
    for cell in sorted(plan.cells):
        text = one_cell(plan.jobs, cell)
        (tmp_path / "again.yaml").write_text(text)
        again = compile_plan(load(tmp_path / "again.yaml"), set(), set())
        assert cell in again.cells
        # Beside it only the clean score, which every model has.
        assert len(again.cells) <= 2
    assert one_cell(plan.jobs, "none") is None
    assert yaml.safe_load(GRID)["name"] == "asked"


@pytest.mark.slow
def test_a_page_of_18_panels_is_small_and_quick(tmp_path):
    folder = tmp_path / "store"
    shares = {
        (rule, gradient): {e / 20: 0.9 - e / 20 for e in range(11)}
        for rule in ("bp", "usf", "frsf", "brsf")
        for gradient in ("feedback", "exact")
    }
    for at in range(9):
        fill(folder, shares, seeds=(0, 1), images=20, draw=at, backbone=f"net{at}")
    data = LiveStore(str(folder))
    client = make_app(data).server.test_client()
    asked = {
        "output": "..results.children...shape.data..",
        "outputs": [{"id": "results", "property": "children"}, {"id": "shape", "property": "data"}],
        "inputs": [{"id": "url", "property": "search", "value": ""}, {"id": "again", "property": "data"}],
        "changedPropIds": ["url.search"],
    }
    assert client.post("/_dash-update-component", json=asked).status_code == 200
    spent = []
    for _ in range(3):
        started = time.process_time()
        answer = client.post("/_dash-update-component", json=asked)
        spent.append(time.process_time() - started)
    figure = block(page(data), Figure).figure
    assert "customdata" in answer.text
    assert sum(trace["mode"] == "lines+markers" for trace in figure["data"]) == 72
    assert len(answer.data) < 300_000
    # Of this process's own time: other work on the machine says nothing about the page.
    assert min(spent) < 0.5, spent
    assert answer.headers["Content-Security-Policy"].startswith("default-src 'self'")


def test_another_hosts_name_gets_nothing_and_images_come_by_key_alone(tmp_path):
    client = make_app(LiveStore(str(fill(tmp_path / "store")))).server.test_client()
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 403
    assert client.get("/image/clean/job-usf-exact-1-0-0.1/0.png").status_code == 200
    for path in ("/image/clean/none/0.png", "/image/other/job-usf-exact-1-0-0.1/0.png"):
        assert client.get(path).status_code == 404
    # A path is no key: it gets the application's page, like every other address.
    assert client.get("/image/clean/..%2f..%2fx/0.png").mimetype == "text/html"


def test_words_of_an_ambiguous_line_are_on_the_page_once(tmp_path):
    folder = fill(tmp_path / "store")
    fill(folder, {("usf", "exact"): {0.1: 0.9}}, seeds=(0,), draw=9)
    warnings = [found for found in page(folder).blocks if isinstance(found, Words) and found.tone == "warning"]
    assert len(warnings) == 1


def test_a_long_title_of_a_panel_takes_more_lines_and_the_room_for_them():
    place = "smallcnn(width=8) / digits(size=16) / weights pretrain=d4cb26fb0e5b / a/store"
    short, long = (
        Panels([(f"{title} / pgd, exact", [])], 1).figure()["layout"] for title in ("smallcnn / digits", place)
    )
    *lines, attack, state = long["annotations"][0]["text"].split("<br>")
    assert " ".join(lines) == place
    assert max(map(len, lines)) <= TITLE_LETTERS
    assert (attack, state) == ("<b>pgd, exact</b>", "not run")
    assert long["height"] - short["height"] == TITLE_LINE * (len(lines) - 1) > 0
    # The title stands above its panel, below the upper end of the figure.
    assert 1 - long["yaxis"]["domain"][1] == pytest.approx(
        (TITLES + TITLE_LINE * (len(lines) - 1)) / (long["height"] - TOP - BOTTOM)
    )

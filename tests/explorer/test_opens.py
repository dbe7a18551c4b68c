"""How often files are opened and folders listed: what a large store makes dear, counted in a small one."""

from __future__ import annotations

from collections import Counter

import pyarrow.csv
import pytest
from stores import GRID, block, fill, keep_grid, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Pictures
from orchestrator.plan import compile
from orchestrator.plan.grids import GridText
from orchestrator.reports.page_files import PageWriter
from orchestrator.results.live_store import LiveStore
from orchestrator.results.planned_cells import planned_jobs
from orchestrator.results.rerun import one_cell
from orchestrator.store.files import Files

#: Jobs of the store below.
JOBS = 12
CELL = "job-usf-exact-1-0-0.1"


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return fill(tmp_path_factory.mktemp("opens") / "store")


@pytest.fixture
def opens(monkeypatch):
    """By folder how many of its files were read, and by "list FOLDER" how often it was listed."""
    counts, read, entries = Counter(), Files.read, Files.entries

    def counting_read(store, path):
        counts[path.partition("/")[0]] += 1
        return read(store, path)

    def counting_entries(store, name, deep=False):
        counts[f"list {name}"] += 1
        return entries(store, name, deep)

    monkeypatch.setattr(Files, "read", counting_read)
    monkeypatch.setattr(Files, "entries", counting_entries)
    return counts


@pytest.mark.parametrize(
    ("what", "results", "outcomes"),
    # Outcomes are read once to check the results, and once more to be written.
    [("results", 1, 1), ("outcomes", 1, 2), ("curves", 1, 1), ("worst", 1, 1)],
)
def test_an_export_reads_no_file_more_often_than_it_must(folder, tmp_path, opens, what, results, outcomes):
    assert main(["export", str(folder), "--what", what, "--out", str(tmp_path / "table.csv")]) == 0
    assert (opens["results"], opens["outcomes"]) == (results * JOBS, outcomes * JOBS)


def test_the_images_of_a_cell_are_found_without_a_listing(folder, opens):
    data = LiveStore(str(folder), at_once=True)
    opens.clear()
    assert len(data.examples(CELL)) == 4
    assert (opens["examples"], opens["list examples"]) == (1, 0)


def test_a_page_file_reads_the_images_of_a_cell_once(folder, tmp_path, opens):
    data = LiveStore(str(folder))
    found = page(data, f"?p=cell&c={CELL}")
    assert len(block(found, Pictures).triples) > 4
    writer = PageWriter(data, tmp_path, "title", [], set())
    opens.clear()
    writer.add(found, "cell")
    # The point has three seeds, and its page shows each one's images.
    assert opens["examples"] == 3


def test_the_grid_of_one_cell_is_found_without_a_plan_of_the_whole_grid(tmp_path, monkeypatch):
    text = GRID.replace("seeds: [0, 1]", f"seeds: {list(range(30))}")
    keep_grid(fill(tmp_path / "store"), text)
    data, planned = LiveStore(str(tmp_path / "store")), []
    cells = data.planned().grids[data.status.names[0]][-1]
    add = compile._Planner.add
    monkeypatch.setattr(compile._Planner, "add", lambda planner, run: planned.append(run) or add(planner, run))
    again = data.rerun_grid(cells.cells[0][0])
    # Of 30 seeds and two rules.
    assert len(planned) <= 2
    # As of the whole grid.
    assert again == one_cell(planned_jobs(GridText(text, "grid.yaml")), cells.cells[0][0])


def test_an_interrupted_export_leaves_nothing(folder, tmp_path, capsys, monkeypatch):
    def interrupted(*_):
        raise KeyboardInterrupt

    out = tmp_path / "table.csv"
    out.write_text("before")
    with monkeypatch.context() as patch:
        patch.setattr(pyarrow.csv, "CSVWriter", interrupting(interrupted))
        assert main(["export", str(folder), "--out", str(out)]) == 130
    assert "signsym export: interrupted" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]
    assert out.read_text() == "before"


def interrupting(interrupted):
    """A writer of CSV that has begun its file when Ctrl-C comes."""

    class Writer(pyarrow.csv.CSVWriter):
        write_table = interrupted

    return Writer

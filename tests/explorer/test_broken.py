"""Stores that are broken, foreign, old, empty or hostile: nothing crashes, and each is named on the page."""

from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from stores import block, fill, keep_grid, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Figure, Words
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store, tables


def test_two_values_for_one_seed_and_epsilon_are_refused(tmp_path):
    folder = fill(tmp_path / "store")
    fill(folder, {("usf", "exact"): {0.1: 0.9}}, seeds=(0,), draw=9)
    index = LiveStore(str(folder)).snapshot.index
    (line,) = index.chosen(rule=("usf",), gradient=("exact",))
    reason = index.ambiguity(line)
    assert "seed 0, epsilon 0.1 (jobs " in reason
    assert "a setting that is not shown" in reason
    found = page(folder)
    assert any("two results for rule usf" in text for text in found.blocks[0].sentences)
    assert {row["rule"] for row in block(found, Figure).table.rows if row["gradient"] == "exact"} == {"BP"}


@pytest.mark.parametrize("folder_of", ["results", "outcomes"])
def test_half_written_foreign_and_old_files_do_not_disturb_the_page_and_are_named(tmp_path, folder_of):
    good = fill(tmp_path / "store")
    before = block(page(good), Figure).table.rows
    whole = next((good / folder_of).glob("*.parquet"))
    (good / folder_of / "half.parquet").write_bytes(whole.read_bytes()[:-200])
    (good / folder_of / "empty.parquet").write_bytes(b"")
    (good / folder_of / "notes.txt").write_text("not ours")
    pq.write_table(pa.table({"cell": ["a"], "other": [1]}), good / folder_of / "foreign.parquet")
    pq.write_table(pq.read_table(whole).drop_columns(["cell"]), good / folder_of / "old.parquet")
    (good / "grids").mkdir()
    (good / "grids" / "old-1.yaml").write_text("name: old\nrules: [x]\n")
    data = LiveStore(str(good))
    found = page(data)
    assert block(found, Figure).table.rows == before
    said = "\n".join(found.blocks[0].sentences)
    for name in ("half", "empty", "foreign", "old"):
        assert f"{folder_of}/{name}.parquet" in said
    assert "grids/old-1.yaml" in said


def test_an_empty_store_says_what_to_run(tmp_path):
    for folder in (tmp_path / "none", tmp_path / "asked" / "store"):
        if folder.name == "store":
            folder.parent.mkdir()
            keep_grid(folder)
        for name in ("curves", "gap", "tables", "flags", "cell"):
            (words,) = page(folder, f"?p={name}").blocks
            assert isinstance(words, Words)
            assert f"signsym sweep quickstart --storage {folder}" in words.commands


def test_a_store_whose_jobs_all_failed_says_so_and_leads_to_why(tmp_path, capsys):
    keep_grid(tmp_path)
    failure = dict.fromkeys(tables.FAILURES.names) | {"job": "a", "title": "fine-tune", "error": "ValueError: no"}
    Store(str(tmp_path)).write_table("failures", "a", [failure], tables.FAILURES)
    words, links = page(tmp_path, "?p=gap").blocks
    assert "1 job failed" in words.sentences[1]
    assert not words.commands
    assert page(tmp_path, links.links[0].search).title == "Runs"
    assert main(["figure", str(tmp_path), "?p=gap", "--out", str(tmp_path / "gap.pdf")]) == 2
    assert "has no result to draw yet; see: signsym status" in capsys.readouterr().err


def test_results_appear_while_a_sweep_writes(tmp_path):
    folder = fill(tmp_path / "store", seeds=(0,))
    data = LiveStore(str(folder))
    assert not data.refresh()
    version = data.snapshot.version
    fill(folder, seeds=(1,), draw=1)
    assert data.refresh()
    assert data.snapshot.version == version + 1
    assert {row["seeds"] for row in block(page(data), Figure).table.rows} == {2}


def test_a_result_that_came_before_its_outcomes_are_read_is_not_lost(tmp_path):
    folder = fill(tmp_path / "store", seeds=(0,))
    hidden = tmp_path / "hidden"
    (folder / "outcomes").rename(hidden)
    data = LiveStore(str(folder))
    page(data)
    hidden.rename(folder / "outcomes")
    fill(folder, seeds=(1,), draw=1)
    data.refresh()
    assert {row["seeds"] for row in block(page(data), Figure).table.rows} == {2}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["curves", "gap", "tables", "flags", "cell"])
@pytest.mark.parametrize(
    "rest",
    ["&c=../../etc/passwd", "&r=<script>", "&e=%00", "&b=%F0%28", "&part=99999", "&s=999999999999999999999", "&t=9"],
)
def test_hostile_addresses_give_a_page(tmp_path_factory, name, rest):
    folder = tmp_path_factory.getbasetemp() / "hostile"
    if not folder.exists():
        fill(folder)
    assert page(folder, f"?p={name}{rest}").title

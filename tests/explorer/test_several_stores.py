"""Several stores looked at together: one set of results, in which no value is chosen in silence."""

from __future__ import annotations

import csv
import io
import json
import shutil
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from stores import block, fill, page, png

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Facts, Figure, Matrix, Pictures, Table, Words
from orchestrator.explorer.app import make_app
from orchestrator.explorer.controls import CONTROLS, options, shown
from orchestrator.results.examples import picture
from orchestrator.results.live_store import LiveStore
from orchestrator.results.live_stores import opened
from orchestrator.results.view import PageView
from orchestrator.store import Store, tables
from orchestrator.store.files import Files

BP = {("bp", "feedback"): {0.0: 1.0, 0.1: 0.4}, ("bp", "exact"): {0.0: 1.0, 0.1: 0.3}}
USF = {("usf", "feedback"): {0.0: 0.95, 0.1: 0.8}, ("usf", "exact"): {0.0: 0.95, 0.1: 0.35}}
SEARCHES = ("?tb=1", "?p=gap", "?p=gap&vs=exact", "?p=tables&t=all", "?p=flags", "?s=0,2")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """BP in one store and uSF in another, and both in a third."""
    place = tmp_path_factory.mktemp("stores")
    first, second, both = place / "first", place / "second", place / "both"
    for folder in (first, both):
        fill(folder, BP)
    for folder in (second, both):
        fill(folder, USF)
    fill(second, {("bp", "exact"): {0.2: 0.2}}, seeds=(3,), draw=1)
    fill(both, {("bp", "exact"): {0.2: 0.2}}, seeds=(3,), draw=1)
    return str(first), str(second), str(both)


@pytest.fixture
def differing(tmp_path):
    """Two stores with other values, and other images, of the same cells, and one more rule each."""
    first = fill(tmp_path / "a" / "runs", BP | USF, seeds=(0, 1))
    second = fill(tmp_path / "b" / "runs", BP | {("fa", "exact"): {0.1: 0.5}}, seeds=(0, 1))
    job = "job-usf-exact-1-0"
    shutil.copyfile(first / f"results/{job}.parquet", second / f"results/{job}.parquet")
    shutil.copyfile(first / f"outcomes/{job}.parquet", second / f"outcomes/{job}.parquet")
    # Other images with other values, under one name.
    fill(second, {("bp", "exact"): {0.0: 0.9, 0.1: 0.9}}, seeds=(0,))
    example = {"cell": "job-bp-exact-0-0-0.1", "image": 0, "label": "7", "predicted": "8", "clean": png(50)}
    Store(str(second)).write_table(
        "examples", "job-bp-exact-0-0", [example | {"adversarial": png(60)}], tables.EXAMPLES
    )
    return str(first), str(second)


def contents(found):
    """The numbers of a page: its tables without the stores and the files, and its sentences."""
    kept = []
    for each in found.blocks:
        table = each.table if isinstance(each, (Figure, Matrix)) else each
        if isinstance(table, Table):
            rows = [{key: value for key, value in row.items() if key != "store"} for row in table.rows]
            kept.append((table.name, rows))
        if isinstance(each, Words):
            kept.append((each.title, each.sentences))
        if isinstance(each, Matrix):
            kept.append((each.title, [(names, [entry.lines for entry in entries]) for names, entries in each.rows]))
    return kept


@pytest.mark.parametrize("search", SEARCHES)
def test_together_they_show_what_one_store_with_all_results_shows(folders, search):
    first, second, both = folders
    together, alone = page(opened([first, second]), search), page(both, search)
    assert contents(together) == contents(alone)
    assert any(isinstance(each, (Figure, Matrix)) for each in together.blocks)


def test_a_result_of_two_stores_is_shown_once(folders, tmp_path):
    shutil.copytree(folders[2], tmp_path / "copy")
    data = opened([folders[2], str(tmp_path / "copy"), folders[0]])
    alone = LiveStore(folders[2])
    assert len(data.snapshot.index) == len(alone.snapshot.index)
    for search in SEARCHES:
        assert contents(page(data, search)) == contents(page(alone, search))


def test_rows_name_their_stores_and_the_filter_shows_those_of_one(folders):
    data = opened(folders[:2])
    rows = block(page(data), Figure).table.rows
    by_rule = {(row["rule"], row["epsilon"]): row["store"] for row in rows}
    assert by_rule["BP", "0.1"] == "first"
    assert by_rule["uSF", "0.1"] == by_rule["BP", "0.2"] == "second"
    for name, folder in zip(("first", "second"), folders, strict=False):
        for search in ("", "p=gap&", "p=flags&"):
            assert contents(page(data, f"?{search}store={name}")) == contents(page(folder, f"?{search}"))
    wrong = block(page(data, "?store=third"), Words)
    assert "no store “third”" in wrong.sentences[0]


def test_one_store_has_no_store_to_choose(folders):
    (control,) = (control for control in CONTROLS if control.name == "store")
    assert not shown(control, PageView(), opened(folders[:1]).names)
    assert shown(control, PageView(), opened(folders[:2]).names)
    assert "store" not in [column.key for column in block(page(folders[0]), Figure).table.columns]


def test_two_values_of_a_cell_are_neither_shown_nor_judged_and_both_files_are_named(differing):
    data = opened(differing)
    assert data.names == ("a/runs", "b/runs")
    found = page(data)
    problems = " ".join(block(found, Words).sentences)
    for folder in differing:
        assert f"{folder}/results/job-bp-exact-0-0.parquet" in problems
    cells = {row["cell"] for row in block(found, Figure).table.rows}
    assert not {cell for cell in cells if cell.startswith("job-bp-exact-0-0-0")}
    query = data.snapshot.query()
    shown_seeds = {
        (line.rule, line.gradient, epsilon): set(query.cells(line, epsilon))
        for line in query.index.lines
        for epsilon in query.epsilons(line)
    }
    assert shown_seeds["usf", "exact", 0.1] == {0, 1}
    assert 0 not in shown_seeds.get(("bp", "exact", 0.1), set())
    for model in data.snapshot.computed(query.seeds).models.known():
        for run in model.evidence.runs:
            seeds = shown_seeds[model.setting["rule"], run.gradient, run.epsilon]
            assert set(run.seeds) == seeds
    assert "no cell" in " ".join(block(page(data, "?p=cell&c=job-bp-exact-0-0-0.1"), Words).sentences)


@pytest.mark.parametrize("search", ["?tb=1&", "?p=gap&vs=exact&"])
def test_panels_by_store_are_those_of_each_store(folders, differing, search):
    for stores in (folders[:2], differing):
        data = opened(stores)
        figure = block(page(data, f"{search}rows=store"), Figure)
        alone = [block(page(folder, search), Figure) for folder in stores]
        assert len(figure.table.rows) == sum(len(one.table.rows) for one in alone)
        assert [row["cell"] for row in figure.table.rows] == [row["cell"] for one in alone for row in one.table.rows]
        rows = [{key: value for key, value in row.items() if key != "store"} for row in figure.table.rows]
        assert rows == [row for one in alone for row in one.table.rows]
        titles = [title for title, _ in figure.drawing.panels]
        assert titles == [
            f"{name} / {title}" for name, one in zip(data.names, alone, strict=True) for title, _ in one.drawing.panels
        ]


def test_a_cell_with_two_values_is_in_the_panels_of_both_stores(differing):
    data = opened(differing)
    found = page(data, "?rows=store")
    for folder in differing:
        assert f"{folder}/results/job-bp-exact-0-0.parquet" in block(found, Words).sentences[0]
    assert "each store shows its own" in block(found, Words).sentences[0]
    # Pages without panels go on as before.
    assert contents(page(data, "?p=flags&rows=store")) == contents(page(data, "?p=flags"))
    (control,) = (control for control in CONTROLS if control.name == "rows")
    for several in (False, True):
        offered = options(control, PageView(), data.snapshot.index, opened(differing[: 1 + several]), [])
        assert ("store" in [choice["value"] for choice in offered]) == several


def test_a_cell_opens_the_files_of_its_store(differing):
    data = opened(differing)
    client = make_app(data).server.test_client()
    for name, folder in zip(data.names, differing, strict=True):
        search = f"?p=cell&c=job-bp-exact-0-0-0.1&store={name.replace('/', '%2F')}"
        found, alone = page(data, search), page(folder, "?p=cell&c=job-bp-exact-0-0-0.1")
        assert contents(found) == contents(alone)
        facts = [each for each in found.blocks if isinstance(each, Facts)]
        assert ("store", name) in [fact for each in facts for fact in each.facts]
        triples, plain = block(found, Pictures).triples, block(alone, Pictures).triples
        assert [(t.cell, t.image, t.caption) for t in triples] == [(t.cell, t.image, t.caption) for t in plain]
        assert {triple.store for triple in triples} == {name}
        answer = client.get(f"/image/clean/job-bp-exact-0-0-0.1/0.png?store={name.replace('/', '%2F')}")
        expected = picture(LiveStore(folder).examples("job-bp-exact-0-0-0.1"), 0, "clean")
        assert Image.open(io.BytesIO(answer.data)).tobytes() == Image.open(io.BytesIO(expected)).tobytes()
    assert client.get("/image/clean/job-bp-exact-0-0-0.1/0.png").status_code == 404


def test_results_that_come_later_are_joined(folders, tmp_path):
    shutil.copytree(folders[1], tmp_path / "second")
    data = opened([folders[0], str(tmp_path / "second")])
    before = data.snapshot
    assert not data.refresh()
    fill(tmp_path / "second", {("fa", "exact"): {0.1: 0.5}}, draw=2)
    assert data.refresh()
    assert data.snapshot.version == before.version + 1
    assert set(data.snapshot.index.choices("rule")) == {"bp", "usf", "fa"}
    assert set(data.chosen(["second"]).index.choices("rule")) == {"bp", "usf", "fa"}


def test_other_images_under_one_name_are_refused(folders, tmp_path, capsys):
    for name, folder in (("one", folders[0]), ("two", folders[1])):
        shutil.copytree(folder, tmp_path / name)
        (tmp_path / name / "splits").mkdir()
        (tmp_path / name / f"splits/{'a' * 64}-{name}.parquet").touch()
    stores = [str(tmp_path / name) for name in ("one", "two")]
    assert main(["figure", *stores, "?g=exact", "--out", str(tmp_path / "figure.svg")]) == 2
    words = capsys.readouterr().err
    assert all(f"{store}/splits/{'a' * 64}-" in words for store in stores)
    assert not (tmp_path / "figure.svg").exists()
    with pytest.raises(ValueError, match="named twice"):
        opened([stores[0], stores[0]])


@pytest.mark.parametrize("what", ["results", "outcomes", "curves"])
def test_an_export_of_several_stores_has_each_cell_once(folders, tmp_path, what):
    first, second, both = folders
    exported = {}
    for name, stores in (("two", (first, second)), ("one", (both,)), ("same", (first, both))):
        assert main(["export", *stores, "--what", what, "--out", str(tmp_path / f"{name}.parquet")]) == 0
        rows = pq.read_table(tmp_path / f"{name}.parquet").to_pylist()
        exported[name] = [{key: value for key, value in row.items() if key != "finished_at"} for row in rows]
    assert "store" not in exported["one"][0]
    for name, stores in (("two", {"first", "second"}), ("same", {"first", "both"})):
        names = {row.pop("store") for row in exported[name]}
        assert {store for each in names for store in each.split(", ")} == stores
        assert sorted(map(repr, exported[name])) == sorted(map(repr, exported["one"]))


def test_an_export_of_several_stores_reads_each_file_of_outcomes_once(folders, tmp_path, monkeypatch):
    read, reads = [], Files.read
    monkeypatch.setattr(Files, "read", lambda self, path: (read.append(f"{self.uri}/{path}"), reads(self, path))[1])
    assert main(["export", *folders[:2], "--what", "results", "--out", str(tmp_path / "out.csv")]) == 0
    outcomes = [path for path in read if "/outcomes/" in path]
    files = [f"{folder}/outcomes/{file.name}" for folder in folders[:2] for file in Path(folder, "outcomes").iterdir()]
    assert sorted(outcomes) == sorted(files)


def test_results_of_a_checked_store_are_those_that_can_be_trusted(folders, tmp_path):
    store = tmp_path / "store"
    shutil.copytree(folders[0], store)
    lost, torn, other, kept, *_ = sorted(file.name for file in (store / "outcomes").iterdir())
    (store / "outcomes" / lost).unlink()
    (store / "results" / torn).write_bytes(b"PAR1")
    shutil.copy(store / "outcomes" / kept, store / "outcomes" / other)
    # The same cells again, by a sweep that finished later.
    for kind in ("results", "outcomes"):
        shutil.copy(store / kind / kept, store / kind / "again.parquet")
    checked, trusted = LiveStore(str(store), at_once=True), Store(str(store))
    checked.check()
    for columns in (tables.RESULTS.names, ("cell", "finetune_job")):
        assert checked.trusted_results(columns) == trusted.result_table(columns)
    assert 0 < len(checked.trusted_results(["cell"])) < len(Store(folders[0]).result_table(["cell"]))
    assert not {lost, torn, other} & {f"{job}.parquet" for job in checked.trusted_results(["job"])["job"].to_pylist()}
    assert checked.skipped.keys() == trusted.skipped.keys()


def test_an_export_leaves_out_cells_with_two_values_and_names_their_files(differing, tmp_path, capsys):
    for what in ("results", "outcomes"):
        assert main(["export", *differing, "--what", what, "--out", str(tmp_path / "out.csv")]) == 0
        words = capsys.readouterr().out
        assert all(f"{folder}/results/job-bp-exact-0-0.parquet" in words for folder in differing)
        cells = {row["cell"] for row in csv.DictReader((tmp_path / "out.csv").open())}
        assert not {cell for cell in cells if cell.startswith("job-bp-exact-0-0-0")}
        assert {cell for cell in cells if cell.startswith("job-usf-exact-1-0-0")}


@pytest.mark.slow
@pytest.mark.usefixtures("undrawn")
def test_figure_and_report_take_several_stores(folders, tmp_path, capsys):
    first, second, both = folders
    for stores, name in (((first, second), "two"), ((both,), "one")):
        assert main(["figure", *stores, "?p=tables", "--out", str(tmp_path / f"{name}.tex")]) == 0
    assert (tmp_path / "two.tex").read_text() == (tmp_path / "one.tex").read_text()
    small = [
        str(fill(tmp_path / rule, {(rule, "exact"): {0.0: 1.0, 0.1: share}}, seeds=(0, 1)))
        for rule, share in (("bp", 0.4), ("usf", 0.7))
    ]
    assert main(["report", *small, "--out", str(tmp_path / "report")]) == 0
    for place, words in ((small[0], "the store itself"), (str(tmp_path / "two.tex"), "a file")):
        assert main(["report", *small, "--out", place]) == 2
        assert f"--out: expected a folder for the report, got {words}" in capsys.readouterr().err
    rows = (tmp_path / "report/tables/gap-classification-gap.csv").read_text().splitlines()
    assert len(rows) == 3
    assert all("uSF" in row for row in rows[1:])
    provenance = json.loads((tmp_path / "report/provenance.json").read_text())
    assert provenance["store"] == ", ".join(small)
    assert provenance["cells"] == 8


def test_the_names_of_stores_may_hold_any_letter(tmp_path):
    stores = [str(fill(tmp_path / name, BP | USF, seeds=(0,), draw=draw)) for draw, name in enumerate(("a{b}", "%s {"))]
    data = opened(stores)
    assert list(data.names) == ["a{b}", "%s {"]
    assert data.snapshot.index.results == 2 * LiveStore(stores[0]).snapshot.index.results

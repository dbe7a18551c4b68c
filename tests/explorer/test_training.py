"""The page of trainings and its export: loss, scores and alignment over epochs, against numbers written out here."""

from __future__ import annotations

import math
import shutil

import pyarrow.parquet as pq
import pytest
import storerows
from stores import COSINES, block, fill, page, write_training

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Figure, Words
from orchestrator.results.histories import Epoch, Histories
from orchestrator.results.live_stores import opened
from orchestrator.results.trainings import Training
from orchestrator.store import Store, records

#: For each rule and seed the loss of each epoch; usf with seed 1 ended after two of three.
LOSSES = {("bp", 0): (3.0, 2.0, 1.0), ("usf", 0): (4.0, 3.0, 2.0), ("usf", 1): (6.0, 5.0)}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("training") / "store"
    for (rule, seed), losses in LOSSES.items():
        job = f"train-{rule}-{seed}"
        # Half of the images are handled rightly, but for the draw.
        fill(folder, {(rule, "none"): {0.0: 0.5}}, seeds=(seed,), finetune_job=job, attack="none")
        fill(folder, {(rule, "exact"): {0.1: 0.5}}, seeds=(seed,), finetune_job=job)
        write_training(Store(str(folder)), job, losses)
    return folder


def figure(folder, search="?p=training"):
    return block(page(folder, search), Figure)


def traces(found, axis, group):
    """The traces of a rule on a panel, whose axis is "x", "x2", ..."""
    return [trace for trace in found.figure["data"] if (trace["xaxis"], trace["legendgroup"]) == (axis, group)]


def test_a_line_is_the_mean_of_the_epochs_that_all_seeds_have_and_thin_ones_are_the_seeds(folder):
    found = figure(folder)
    thin, mean = traces(found, "x", "usf")
    assert (thin["x"], thin["y"]) == ([1, 2, 3, None, 1, 2, None], [4.0, 3.0, 2.0, None, 6.0, 5.0, None])
    assert [text.rpartition(" ")[2] for text in thin["hovertext"]] == ["0"] * 4 + ["1"] * 3
    assert (mean["x"], mean["y"]) == ([1, 2], [5.0, 4.0])
    (single,) = traces(found, "x", "bp")
    assert (single["x"], single["y"], single["mode"]) == ([1, 2, 3, None], [3.0, 2.0, 1.0, None], "lines+markers")
    titles = [each["text"].rpartition("<br>")[2] for each in found.figure["layout"]["annotations"]]
    shown = ["training loss", "score: validation, ◇ clean test", "cosine of gradient to BP's"]
    shown += ["angle of B to W, degrees", "|gradient| / |BP's gradient|", ""]
    assert [title.removeprefix("<b>").removesuffix("</b>") for title in titles] == shown


def test_layers_are_a_mean_or_each_by_itself(folder):
    mean = traces(figure(folder), "x3", "bp")[0]
    assert mean["y"] == [pytest.approx(0.7)] * 3 + [None]
    # The angle of one layer alone: the other has no matrix in the place of W.
    assert traces(figure(folder), "x4", "bp")[0]["y"] == [40.0] * 3 + [None]
    each = figure(folder, "?p=training&ly=each&r=bp")
    assert [traces(each, axis, "bp")[0]["y"][0] for axis in ("x", "x4")] == [*COSINES.values()]
    assert traces(each, "x5", "bp") == []
    assert [(row["epoch"], row["layer"]) for row in each.table.rows] == [(e, c) for c in COSINES for e in (1, 2, 3)]


def test_the_clean_score_stands_at_the_epoch_that_was_kept(folder):
    found = figure(folder)
    scores = {row["rule"]: row["clean"] for row in found.table.rows if row["clean"] is not None}
    assert {row["epoch"] for row in found.table.rows if row["clean"] is not None} == {2}
    line, clean = traces(found, "x2", "bp")
    assert (line["x"], line["y"]) == ([1, None], [0.25, None])
    assert (clean["x"], clean["y"]) == ([2], [pytest.approx(scores["BP"], abs=1e-4)])
    assert clean["customdata"] == line["customdata"][:1], "a click leads to the same cell"


def test_filters_choose_trainings_and_change_no_number(folder):
    bp, every = (figure(folder, search).figure["data"] for search in ("?p=training&r=bp", "?p=training"))
    assert bp == [trace for trace in every if trace["legendgroup"] == "bp"]
    seeds = {row["seed"] for row in figure(folder, "?p=training&s=1").table.rows}
    assert seeds == {1}
    # Trainings do not depend on attacks, whose filters this page does not have.
    assert figure(folder, "?p=training&a=pgd&g=exact").figure == figure(folder).figure


@pytest.mark.parametrize("attack", ["none", "pgd"])
def test_a_second_fine_tune_of_a_seed_is_told_where_one_of_two_is_shown(folder, tmp_path, attack):
    assert not [each for each in page(folder, "?p=training").blocks if each.title == "Problems"]
    place = shutil.copytree(folder, tmp_path / "store")
    # With a clean score of its own, or an attack alone.
    gradient, epsilon = ("none", 0.0) if attack == "none" else ("exact", 0.2)
    fill(place, {("usf", gradient): {epsilon: 0.5}}, seeds=(1,), finetune_job="train-again", attack=attack, draw=7)
    write_training(Store(str(place)), "train-again", (9.0, 8.0))
    shown = page(place, "?p=training")
    (problem,) = block(shown, Words).sentences
    assert problem.startswith("uSF on smallcnn / digits, seed 1: 2 fine-tunes have results; one is here, ")
    assert {job for job in ("train-usf-1", "train-again") if job in problem} == {"train-usf-1", "train-again"}
    assert len({(row["rule"], row["seed"]) for row in block(shown, Figure).table.rows}) == 3
    # It is about that seed of that rule alone.
    assert "fine-tunes have results" not in repr(page(place, "?p=training&s=0").blocks)


def test_what_cannot_be_read_is_named_and_older_stores_open(folder, tmp_path):
    bare = fill(tmp_path / "bare")
    assert block(page(bare, "?p=training"), Words).title == "Nothing is stored of these trainings"
    store = Store(str(bare))
    write_training(store, "f", (1.0,), history="none")
    found = page(bare, "?p=training")
    assert "models/f/record.json: expected a record with a history" in " ".join(block(found, Words).sentences)
    # What the table of alignment has is there.
    assert traces(block(found, Figure), "x", "bp")[0]["y"] == [pytest.approx(0.7), None]
    write_training(store, "f", (1.0,))
    (bare / "alignment/f.parquet").unlink()
    assert "kept_epoch" in store.record("f")
    words = [each.title for each in page(bare, "?p=training&ly=each").blocks if isinstance(each, Words)]
    assert "Nothing is stored of their layers" in words


def test_the_epoch_that_an_older_record_kept_is_the_last(tmp_path):
    store = Store(str(tmp_path))
    record = storerows.record("a") | {"history": [{"epoch": 1, "loss": 2.0}, {"epoch": 2, "loss": 1.5}]}
    store.write("models/a/record.json", records.written(record))
    known = Histories(store).of(["a", "missing"])
    assert known["a"].kept == 2
    assert known["a"].epochs[1] == Epoch(epoch=2, loss=1.5, validation=None)
    assert [*known] == ["a"]
    training = Training(model=None, history=known["a"], rows=[{"layer": "l", "epoch": 3, "ratio": math.inf}])
    assert training.series("ratio") == {}
    assert training.epochs == [1, 2, 3]


def test_stores_are_shown_together(folder, tmp_path):
    other = tmp_path / "other"
    fill(other, {("fa", "none"): {0.0: 0.5}}, seeds=(0,), finetune_job="train-fa", attack="none")
    write_training(Store(str(other)), "train-fa", (9.0, 8.0))
    found = figure(opened([str(folder), str(other)]))
    assert {row["store"] for row in found.table.rows if row["rule"] == "FA"} == {"other"}
    assert traces(found, "x", "fa")[0]["y"] == [9.0, 8.0, None]
    assert main(["export", str(folder), str(other), "--what", "training", "--out", str(tmp_path / "t.csv")]) == 0
    lines = (tmp_path / "t.csv").read_text().splitlines()
    assert len(lines) == 1 + 2 * (8 + 2)
    assert sum(line.endswith('"other"') for line in lines) == 4


def test_the_export_has_a_row_for_each_fine_tune_epoch_and_layer(folder, tmp_path):
    assert main(["export", str(folder), "--what", "training", "--out", str(tmp_path / "t.parquet")]) == 0
    rows = pq.read_table(tmp_path / "t.parquet").to_pylist()
    found = {(row["rule"], row["seed"], row["epoch"], row["layer"]): row for row in rows}
    losses = {(*model, epoch): loss for model, each in LOSSES.items() for epoch, loss in enumerate(each, 1)}
    assert {key: row["loss"] for key, row in found.items()} == {
        (*key, layer): loss for key, loss in losses.items() for layer in COSINES
    }
    assert len(rows) == len(found)
    assert {row["cosine"] for row in rows if row["layer"] == "conv"} == {0.5}
    assert {row["epoch"] for row in rows if row["kept"]} == {2} == {row["epoch"] for row in rows if row["clean"]}
    assert [row["validation"] for row in rows if row["rule"] == "bp"] == [0.25] * 2 + [None] * 4
    # Without a table of alignment an epoch is one row.
    bare = fill(tmp_path / "bare", {("bp", "exact"): {0.1: 0.5}}, seeds=(0,))
    write_training(Store(str(bare)), "f", (2.0, 1.0))
    (bare / "alignment/f.parquet").unlink()
    assert main(["export", str(bare), "--what", "training", "--out", str(tmp_path / "b.parquet")]) == 0
    rows = pq.read_table(tmp_path / "b.parquet").to_pylist()
    assert [(row["epoch"], row["layer"], row["loss"], row["clean"]) for row in rows] == [
        (1, None, 2.0, None),
        (2, None, 1.0, None),
    ]


def test_alignment_is_listed_once_however_many_trainings_are_exported(folder, tmp_path, monkeypatch):
    store = tmp_path / "store"
    shutil.copytree(folder, store)
    (store / "alignment/train-usf-0.parquet").unlink()
    listed, listing = [], Store.listing
    monkeypatch.setattr(Store, "listing", lambda self, of, suffix: (listed.append(of), listing(self, of, suffix))[1])

    def exported():
        assert main(["export", str(store), "--what", "training", "--out", str(tmp_path / "t.parquet")]) == 0
        return sorted(map(repr, pq.read_table(tmp_path / "t.parquet").to_pylist()))

    at_once = exported()
    assert len(at_once) == 2 * (3 + 2) + 3
    for many in (1, 2):
        monkeypatch.setattr("orchestrator.results.epoch_rows.TOGETHER", many)
        listed.clear()
        assert exported() == at_once
        assert listed.count("alignment") == 1
    main(["compact", str(store)])
    assert exported() == at_once

"""Alignment on pages: the layers of a cell's training, and what survives against the angle of B to W."""

from __future__ import annotations

import pytest
from stores import fill, page

from orchestrator.drawing.blocks import Figure, Words
from orchestrator.results.alignment import Alignment
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store, compact, tables

#: Degrees of two layers after the last of two epochs, and shares robust along the own feedback and the exact gradient.
RULES = {"bp": (0.0, 0.0, 0.3, 0.3), "usf": (20.0, 40.0, 0.6, 0.2), "fa": (80.0, 90.0, 0.9, 0.0)}


def put(store, job, angles, cosine=0.5):
    empty = dict.fromkeys(tables.ALIGNMENT.names) | {"job": job, "cosine": cosine, "norm": 1.0}
    rows = [
        empty | {"epoch": epoch, "step": 1, "layer": layer, "angle": angle}
        for epoch in (1, 2)
        for layer, angle in zip(("conv", "head"), angles if epoch == 2 else (angles[0] and 90.0, None), strict=True)
    ]
    store.write_table("alignment", job, rows, tables.ALIGNMENT)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("alignment") / "store"
    for rule, (*angles, feedback, exact) in RULES.items():
        shares = {(rule, "feedback"): {0.0: 1.0, 0.1: feedback}, (rule, "exact"): {0.0: 1.0, 0.1: exact}}
        fill(folder, shares, seeds=(0,), finetune_job=f"train-{rule}")
        put(Store(str(folder)), f"train-{rule}", angles)
    # A rule without a matrix in the place of W.
    fill(folder, {("dfa", "feedback"): {0.1: 0.5}}, seeds=(0,), finetune_job="train-dfa")
    put(Store(str(folder)), "train-dfa", (None, None))
    return folder


def cell(folder, rule):
    index = LiveStore(str(folder)).snapshot.index
    (line,) = index.chosen(rule=(rule,), gradient=("feedback",))
    return str(index.value("cell", line.stop - 1))


def test_the_angle_of_a_training_is_the_mean_over_layers_after_the_last_epoch(folder):
    known = Alignment(Store(str(folder)))
    assert known.angles({"train-bp": None, "train-fa": 2}) == {"train-bp": 0.0, "train-fa": 85.0}
    assert known.angles({"train-usf": None, "train-dfa": None, "none": None}) == {"train-usf": 30.0}


def test_the_angle_is_that_of_the_epoch_whose_model_was_attacked(folder, tmp_path):
    known = Alignment(Store(str(folder)))
    assert known.angles({"train-fa": 1, "train-usf": 3, "train-dfa": 1}) == {"train-fa": 90.0}
    for rule, (*angles, _, _) in RULES.items():
        fill(tmp_path, {(rule, "feedback"): {0.1: 0.5}}, seeds=(0,), finetune_job=f"train-{rule}", finetune_epoch=1)
        put(Store(str(tmp_path)), f"train-{rule}", angles)
    figure = next(each for each in page(tmp_path, "?p=gap&e=0.1").blocks if getattr(each, "name", "") == "angles")
    assert {row["rule"]: row["angle"] for row in figure.table.rows} == {"BP": 0.0, "uSF": 90.0, "FA": 90.0}


def test_a_training_that_ran_again_after_a_merge_has_its_new_angle(tmp_path):
    store = Store(str(tmp_path))
    for job in ("a", "b"):
        put(store, job, (10.0, 10.0))
    known = Alignment(store)
    assert known.angles({"a": None, "b": None}) == {"a": 10.0, "b": 10.0}
    compact.compact(store)
    assert known.angles({"a": None, "b": None}) == {"a": 10.0, "b": 10.0}
    put(store, "a", (20.0, 40.0))
    assert known.angles({"a": None, "b": None}) == {"a": 30.0, "b": 10.0}
    assert known.rows("b")[0]["job"] == "b"


def test_a_cell_shows_its_layers_over_epochs(folder):
    found = page(folder, f"?p=cell&c={cell(folder, 'usf')}").blocks
    figure = next(each for each in found if getattr(each, "name", "") == "alignment")
    matrix, gradients = figure.figure["data"]
    assert (matrix["x"], matrix["y"], matrix["z"]) == ([1, 2], ["conv", "head"], [[90.0, 20.0], [None, 40.0]])
    assert gradients["z"] == [[60.0, 60.0]] * 2
    assert [(row["layer"], row["epoch"], row["angle"]) for row in figure.table.rows][-1] == ("head", 2, 40.0)
    assert figure.table.rows[0]["gradient"] == pytest.approx(60)


def test_a_rule_without_a_matrix_shows_its_gradients_alone_and_one_without_a_table_nothing(folder, tmp_path):
    found = page(folder, f"?p=cell&c={cell(folder, 'dfa')}").blocks
    (figure,) = [each for each in found if getattr(each, "name", "") == "alignment"]
    assert len(figure.figure["data"]) == 1
    assert "angle" not in [column.key for column in figure.table.columns]
    bare = fill(tmp_path / "bare", seeds=(0,))
    names = [getattr(each, "name", "") for each in page(bare, f"?p=cell&c={cell(bare, 'usf')}").blocks]
    assert "alignment" not in names


def test_models_are_compared_by_angle_with_the_rank_correlation(folder):
    found = page(folder, "?p=gap&e=0.1")
    figure = next(each for each in found.blocks if isinstance(each, Figure) and each.name == "angles")
    rows = figure.table.rows
    assert [(row["rule"], row["angle"]) for row in rows] == [("BP", 0.0), ("uSF", 30.0), ("FA", 85.0)]
    assert rows[0]["feedback"] < rows[1]["feedback"] < rows[2]["feedback"]
    words = next(each for each in found.blocks if isinstance(each, Words) and "grow with the angle" in each.title)
    assert "own feedback +1.00, over 3 models; with what survives the exact gradient -1.00." in words.sentences[0]


def test_fewer_than_three_models_with_an_angle_are_not_compared(folder):
    found = page(folder, "?p=gap&e=0.1&r=usf,fa,dfa")
    assert not [each for each in found.blocks if getattr(each, "name", "") == "angles"]

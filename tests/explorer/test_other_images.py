"""Results of other images or seeds beside each other, as a grid leaves them that was edited between two sweeps."""

from __future__ import annotations

import csv

import numpy as np
import pandas as pd
import pytest
from stores import block, fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Figure, Matrix
from orchestrator.results.live_store import LiveStore
from orchestrator.results.live_stores import opened
from orchestrator.store import Store, tables


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """BP on 40 images with two seeds; uSF on 60 images with one seed and on 50 with two more, and at another ε."""
    folder = tmp_path_factory.mktemp("other") / "store"
    fill(folder, {("bp", "exact"): {0.1: 0.4}}, seeds=(0, 1), images=40)
    fill(folder, {("usf", "exact"): {0.1: 0.7}}, seeds=(0,), images=60, draw=1)
    fill(folder, {("usf", "exact"): {0.1: 0.5}}, seeds=(1, 2), images=50, draw=2)
    return fill(folder, {("usf", "exact"): {0.2: 0.3}}, seeds=(0,), images=80, draw=3)


@pytest.fixture(scope="module")
def robust(folder):
    """Robust or not by rule, seed and image, at ε = 0.1, read from the files."""
    results, outcomes = (pd.read_parquet(folder / name) for name in ("results", "outcomes"))
    chosen = outcomes.merge(results[results.epsilon == 0.1][["cell", "rule", "seed"]], on="cell")
    return {(row.rule, row.seed, row.image): row.robust for row in chosen.itertuples()}


def test_the_scores_of_seeds_are_over_the_images_of_the_score(folder, robust):
    query = LiveStore(str(folder)).snapshot.query()
    (curve,) = query.curves(query.index.chosen(rule=("usf",)))
    by_seed = {seed: np.mean([robust["usf", seed, image] for image in range(50)]) for seed in (0, 1, 2)}
    assert curve.points[0].by_seed == pytest.approx(by_seed)
    assert curve.points[0].score.value == pytest.approx(np.mean(list(by_seed.values())))


def test_a_panel_says_from_how_many_images_to_how_many(folder):
    (curves,) = [each for each in page(folder).blocks if isinstance(each, Figure) and each.name == "curves"]
    assert "n = 40 to 80, 1 to 3 seeds" in str(curves.figure["layout"]["annotations"])
    gaps = block(page(folder, "?p=gap"), Figure)
    assert "few: n = 40, 2 seeds" in str(gaps.figure["layout"]["annotations"])


def test_a_gap_says_on_which_images_it_is(folder, robust, tmp_path):
    pairs = [(robust["usf", seed, image], robust["bp", seed, image]) for seed in (0, 1) for image in range(40)]
    gap = np.mean([float(usf) - float(bp) for usf, bp in pairs])
    (curves,) = [each for each in page(folder).blocks if isinstance(each, Figure) and each.name == "curves"]
    row = next(row for row in curves.table.rows if row["rule"] == "uSF" and row["epsilon"] == "0.1")
    assert (row["images"], row["seeds"], row["gap_images"], row["gap_seeds"]) == (50, 3, 40, 2)
    assert row["gap"] == pytest.approx(gap)
    assert "points, of n = 40, 2 seeds" in str(curves.figure["data"])
    answers = next(each for each in page(folder, "?p=gap&e=0.1").blocks if isinstance(each, Matrix))
    worst, beside = answers.rows[1][1][1:3]
    assert (worst.lines[1], beside.lines[1]) == ("n = 50, 3 seeds", "n = 40, 2 seeds")
    for what in ("curves", "worst"):
        assert main(["export", str(folder), "--what", what, "--out", str(tmp_path / "it.csv")]) == 0
        rows = list(csv.DictReader((tmp_path / "it.csv").open()))
        row = next(row for row in rows if row["rule"] == "usf" and row["epsilon"] == "0.1")
        assert (row["images"], row["seeds"], row["gap_to_bp_images"], row["gap_to_bp_seeds"]) == ("50", "3", "40", "2")
        assert float(row["gap_to_bp"]) == pytest.approx(gap)
        assert row["norm"] == "linf"


def test_exports_say_what_two_results_of_one_point_leave_out(tmp_path, capsys):
    made = fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.4}}, images=40)
    fill(made, {("bp", "exact"): {0.1: 0.9}}, seeds=(0,), images=40, draw=1)
    fill(made, {("bp", "feedback"): {0.1: 0.4}}, images=40)
    assert main(["export", str(made), "--what", "curves", "--out", str(tmp_path / "it.csv")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Left out: two results for rule bp, attack pgd, gradient exact, seed 0, epsilon 0.1" in said
    assert main(["export", str(made), "--what", "worst", "--out", str(tmp_path / "worst.csv")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing of worst is there" in said
    assert "Left out: two results" in said


@pytest.fixture(scope="module")
def grown(tmp_path_factory):
    """BP and uSF on 40 images, then on 60, of which uSF has only one of two seeds yet; and two stores with the same."""
    folder = tmp_path_factory.mktemp("grown")
    for place, (fewer, more) in {"store": (True, True), "one": (True, False), "other": (False, True)}.items():
        if fewer:
            fill(folder / place, {("bp", "exact"): {0.1: 0.4}, ("usf", "exact"): {0.1: 0.6}}, seeds=(0, 1), images=40)
        if more:
            fill(folder / place, {("bp", "exact"): {0.1: 0.4}}, seeds=(0, 1), images=60, draw=1)
            fill(folder / place, {("usf", "exact"): {0.1: 0.6}}, seeds=(0,), images=60, draw=2)
    return folder


@pytest.mark.parametrize("stores", [["store"], ["one", "other"]])
def test_of_results_of_other_images_those_of_the_most_are_taken(grown, stores):
    robust = {}
    for name in stores:
        results, outcomes = (pd.read_parquet(grown / name / part) for part in ("results", "outcomes"))
        for row in outcomes.merge(results[["cell", "rule", "seed", "n"]], on="cell").itertuples():
            robust.setdefault((row.rule, row.seed), {}).setdefault(row.n, []).append(row.robust)
    bp = [np.mean(robust["bp", seed][60]) for seed in (0, 1)]
    # What both seeds have: the first 40 images of the larger result, and the smaller one.
    usf = [np.mean(robust["usf", 0][60][:40]), np.mean(robust["usf", 1][40])]
    gap = np.mean(usf) - np.mean([np.mean(robust["bp", seed][60][:40]) for seed in (0, 1)])
    data = opened([str(grown / name) for name in stores])
    (curves,) = [each for each in page(data).blocks if isinstance(each, Figure) and each.name == "curves"]
    rows = {row["rule"]: row for row in curves.table.rows}
    assert (rows["BP"]["value"], rows["BP"]["images"]) == (pytest.approx(np.mean(bp)), 60)
    assert (rows["uSF"]["value"], rows["uSF"]["images"]) == (pytest.approx(np.mean(usf)), 40)
    assert rows["uSF"]["gap"] == pytest.approx(gap)


def test_results_and_outcomes_are_exported_of_what_counts(grown, tmp_path):
    for stores in (["store"], ["one", "other"]):
        asked = ["export", *(str(grown / name) for name in stores), "--out", str(tmp_path / "it.parquet")]
        assert main([*asked, "--what", "results"]) == 0
        rows = pd.read_parquet(tmp_path / "it.parquet")
        assert sorted(zip(rows.rule, rows.seed, rows.n, strict=True)) == [
            ("bp", 0, 60),
            ("bp", 1, 60),
            ("usf", 0, 60),
            ("usf", 1, 40),
        ]
        assert main([*asked, "--what", "outcomes"]) == 0
        assert len(pd.read_parquet(tmp_path / "it.parquet")) == 220


def test_a_cell_of_fewer_images_leads_to_the_one_that_stands_for_it(grown):
    index = LiveStore(str(grown / "store")).snapshot.index
    assert (len(index), index.results) == (4, 7)
    row = index.row_of("job-usf-exact-0-0-0.1")
    assert index.value("cell", row) == "job-usf-exact-0-2-0.1"
    assert index.row_of("job-usf-exact-1-0-0.1") != row
    assert "is of fewer images; that of 60 is here" in str(page(grown / "store", "?p=cell&c=job-usf-exact-0-0-0.1"))


def test_a_number_of_images_above_that_of_the_test_set_makes_no_second_result(tmp_path):
    made = tmp_path / "store"
    # `images: 5000`, then `images: null`, of 40 test images: the same outcomes in cells of their own.
    store = Store(str(fill(made, {("bp", "exact"): {0.1: 0.4}}, seeds=(0,), images=40)))
    (row,), outcomes = store.table("results", tables.RESULTS).to_pylist(), store.table("outcomes", tables.OUTCOMES)
    again = [outcome | {"cell": "again"} for outcome in outcomes.to_pylist()]
    store.write_table("outcomes", "again", again, tables.OUTCOMES)
    later = {"cell": "again", "job": "again", "finished_at": row["finished_at"].replace(year=2100)}
    store.write_table("results", "again", [row | later], tables.RESULTS)
    (curves,) = [each for each in page(made).blocks if isinstance(each, Figure) and each.name == "curves"]
    assert [(shown["value"], shown["cell"]) for shown in curves.table.rows] == [(row["value"], row["cell"])]
    assert "is the same on the same images" in str(page(made, "?p=cell&c=again"))


def test_two_fine_tunes_stand_not_for_each_other_and_of_a_cell_twice_one_row_stays(tmp_path):
    for place, more in {"models": {"finetune_job": "g"}, "cells": {"cell": "job-bp-exact-0-0-0.1"}}.items():
        made = fill(tmp_path / place, {("bp", "exact"): {0.1: 0.4}}, seeds=(0,), images=40)
        fill(made, {("bp", "exact"): {0.1: 0.4}}, seeds=(0,), images=60, draw=1, **more)
        index = LiveStore(str(made)).snapshot.index
        assert (len(index), bool(index.ambiguity(index.lines[0]))) == {"models": (2, True), "cells": (1, False)}[place]

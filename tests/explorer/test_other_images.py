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


def test_exports_say_what_two_results_of_one_point_leave_out(folder, tmp_path, capsys):
    made = fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.4}}, images=40)
    fill(made, {("bp", "exact"): {0.1: 0.4}}, seeds=(0,), images=60, draw=1)
    fill(made, {("bp", "feedback"): {0.1: 0.4}}, images=40)
    assert main(["export", str(made), "--what", "curves", "--out", str(tmp_path / "it.csv")]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "Left out: two results for rule bp, attack pgd, gradient exact, seed 0, epsilon 0.1" in said
    assert "of 40 and of 60 images" in said or "of 60 and of 40 images" in said
    assert main(["export", str(made), "--what", "worst", "--out", str(tmp_path / "worst.csv")]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "nothing of worst is there" in said
    assert "Left out: two results" in said

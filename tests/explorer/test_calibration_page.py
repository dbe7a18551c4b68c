"""Calibration on the page Tables and in the export, beside numbers made by hand from what was stored."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from storerows import outcomes, result
from stores import fill, page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Matrix
from orchestrator.store import Store, tables
from signsym_core.statistics.calibration import error_by_chance, expected_calibration_error
from signsym_core.statistics.intervals import mean_of

IMAGES, HITS = 20, 15
#: By rule and seed the confidence in each image; the last one was evaluated before there were any.
SURE = {
    (rule, seed): np.random.default_rng(place).uniform(0.3, 1, IMAGES).astype(np.float32)
    for place, (rule, seed) in enumerate([("bp", 0), ("bp", 1), ("usf", 0)])
}
CORRUPTED = '{"corruption":"gaussian_noise","severity":3}'


def put(store, rule, seed, confidence, **more):
    cell = f"clean-{rule}-{seed}" + "-noise" * bool(more)
    about = {"rule": rule, "seed": seed, "attack": "none", "gradient": "none", "epsilon": 0.0, "epsilon_label": "0"}
    rows = outcomes(cell, IMAGES, HITS)
    if confidence is not None:
        rows = [row | {"confidence": float(confidence[row["image"]])} for row in rows]
    store.write_table("outcomes", cell, rows, tables.OUTCOMES)
    store.write_table("results", cell, [result(cell, IMAGES, HITS, **about, **more)], tables.RESULTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    store = Store(str(tmp_path_factory.mktemp("calibration") / "store"))
    for (rule, seed), confidence in SURE.items():
        put(store, rule, seed, confidence)
    put(store, "frsf", 0, SURE["bp", 0])
    put(store, "frsf", 1, None)
    put(store, "bp", 0, SURE["usf", 0], dataset_params=CORRUPTED)
    return store.uri


def matrix(found):
    return next((each for each in found.blocks if isinstance(each, Matrix) and each.name == "calibration"), None)


def test_the_table_has_each_model_whose_confidences_are_stored(folder):
    bp, usf = matrix(page(folder, "?p=tables")).table.rows
    assert (bp["rule"], usf["rule"]) == ("BP", "uSF")
    is_right = np.arange(IMAGES) < HITS
    c = np.array([SURE["bp", seed] for seed in (0, 1)]).astype(float)
    errors = [expected_calibration_error(of_seed, is_right) for of_seed in c]
    assert bp["ece"] == pytest.approx(np.mean(errors))
    assert bp["by_chance"] == pytest.approx(np.mean([error_by_chance(of_seed) for of_seed in c]))
    half = 12.706204736 * np.std(errors, ddof=1) / np.sqrt(2)
    assert (bp["ece_lo"], bp["ece_hi"]) == pytest.approx((max(0, np.mean(errors) - half), np.mean(errors) + half))
    brier = mean_of((c - is_right) ** 2)
    assert (bp["brier"], bp["brier_lo"]) == pytest.approx((brier.value, brier.lo))
    assert (bp["accuracy"], bp["confidence"]) == pytest.approx((0.75, c.mean()))
    assert (bp["images"], bp["seeds"], usf["seeds"]) == (IMAGES, 2, 1)
    assert "ece_lo" not in usf


def test_no_interval_of_a_share_leaves_what_a_share_can_be(tmp_path):
    """Two seeds that are sure by 76 and 30 %: Student's quantile at one degree of freedom is 12.7."""
    store = Store(str(tmp_path / "store"))
    for seed, sure in ((0, 0.76), (1, 0.3)):
        put(store, "bp", seed, np.full(IMAGES, sure))
    (row,) = matrix(page(store.uri, "?p=tables")).table.rows
    ends = [row[f"{name}_{end}"] for name in ("accuracy", "confidence", "ece", "brier") for end in ("lo", "hi")]
    assert ends[2:6] == [0, 1] * 2
    assert min(ends) >= 0
    assert max(ends) <= 1


def test_a_store_without_confidences_has_no_such_table(tmp_path):
    fill(tmp_path / "store", {("bp", "none"): {0.0: 0.9}}, seeds=(0,), attack="none")
    assert matrix(page(tmp_path / "store", "?p=tables")) is None


def test_the_export_has_corrupted_images_too(folder, tmp_path, capsys):
    assert main(["export", folder, "--what", "calibration", "--out", str(tmp_path / "c.csv")]) == 0
    capsys.readouterr()
    rows = {(row["rule"], row["corruption"]): row for row in csv.DictReader((tmp_path / "c.csv").open())}
    assert set(rows) == {("bp", "none"), ("usf", "none"), ("bp", "gaussian_noise")}
    noisy = rows["bp", "gaussian_noise"]
    assert float(noisy["ece"]) == pytest.approx(
        expected_calibration_error(SURE["usf", 0], np.arange(IMAGES) < HITS), abs=1e-6
    )
    assert (noisy["severity"], noisy["dataset_params"], noisy["ece_lo"]) == ("3", "{}", "")
    assert float(rows["bp", "none"]["ece_lo"]) < float(rows["bp", "none"]["ece"])

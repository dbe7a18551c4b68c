"""The loss around the test images: means by hand beside the page and the export, of a store that was merged too."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from storerows import outcomes, result
from stores import page

from orchestrator.commands.cli import main
from orchestrator.drawing.blocks import Matrix
from orchestrator.pages import geometry
from orchestrator.results.live_stores import opened
from orchestrator.store import Store, compact, tables
from signsym_core.statistics.intervals import Interval, gap, mean_of

IMAGES = 12
#: Numbers of each rule and gradient, one for each seed and image.
NUMBERS = {
    (rule, gradient): np.random.default_rng(place).uniform(0, 1, (2, IMAGES, len(tables.MEASURES))).astype(np.float32)
    for place, (rule, gradient) in enumerate([("bp", "feedback"), ("frsf", "feedback"), ("frsf", "exact")])
}
NUMBERS["frsf", "feedback"][1, 3, 2] = np.nan
#: Where numbers end, other than at 0.
ENDS = {"cosine": (-1.0, 1.0), "sign_agreement": (0.0, 1.0), "rise": (-np.inf, np.inf)}


def put(store, rule, gradient, seed, attack="geometry"):
    cells = {f"{attack}-{rule}-{gradient}-{seed}-{epsilon}": epsilon for epsilon in (0.05, 0.1)}
    job, rows, results = f"job-{attack}-{rule}-{gradient}-{seed}", [], []
    for cell, epsilon in cells.items():
        about = {"job": job, "rule": rule, "gradient": gradient, "seed": seed, "attack": attack}
        about |= {"epsilon": epsilon, "epsilon_label": f"{epsilon:g}"}
        results.append(result(cell, IMAGES, 6, **about))
        for row in outcomes(cell, IMAGES, 6):
            numbers = NUMBERS[rule, gradient][seed, row["image"]].tolist() if attack == "geometry" else []
            known = dict(zip(tables.MEASURES, numbers, strict=False))
            rows.append(row | {name: None if np.isnan(value) else value for name, value in known.items()})
    store.write_table("outcomes", job, rows, tables.OUTCOMES)
    store.write_table("results", job, results, tables.RESULTS)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("geometry") / "store"
    for rule, gradient in NUMBERS:
        for seed in (0, 1):
            put(Store(str(folder)), rule, gradient, seed)
            put(Store(str(folder)), rule, gradient, seed, "pgd")
    return folder


def matrix(folder, search="?p=gap&e=0.05"):
    found = [each for each in page(folder, search).blocks if isinstance(each, Matrix) and each.name == "geometry"]
    return found[0] if found else None


def test_the_page_has_the_means_over_images_and_seeds(folder):
    rows = {(row["rule"], row["gradient"]): row for row in matrix(folder).table.rows}
    assert set(rows) == {
        ("BP", "its own feedback"),
        ("frSF", "its own feedback"),
        ("frSF", "the exact gradient"),
    }
    row, x = rows["frSF", "its own feedback"], NUMBERS["frsf", "feedback"].astype(float)
    for place, name in enumerate(tables.MEASURES):
        # The image that has no cosine under one seed counts under none.
        kept = np.delete(x[..., place], 3, axis=1) if name == "cosine" else x[..., place]
        assert row[name] == pytest.approx(kept.mean())
        least, most = ENDS.get(name, (0.0, np.inf))
        expected = mean_of(kept, least=least, most=most)
        assert (row[f"{name}_lo"], row[f"{name}_hi"]) == pytest.approx((expected.lo, expected.hi))
    assert row["predicted"] == pytest.approx(0.05 * x[..., 0].mean())
    assert (row["epsilon"], row["seeds"], row["cell"]) == ("0.05", 2, "geometry-frsf-feedback-0-0.05")


def test_intervals_end_where_numbers_do(tmp_path, monkeypatch):
    numbers = np.ones((2, IMAGES, len(tables.MEASURES)), dtype=np.float32)
    numbers[:, 0] = [90.0, 90.0, -1.0, 0.0, -4.0, 90.0]
    monkeypatch.setitem(NUMBERS, ("bp", "feedback"), numbers)
    put(Store(str(tmp_path / "store")), "bp", "feedback", 0)
    (row,) = matrix(tmp_path / "store").table.rows
    ends = ["grad_l1_lo", "grad_l2_lo", "predicted_lo", "linearity_lo", "cosine_hi", "sign_agreement_hi"]
    assert [row[end] for end in ends] == [0.0] * 4 + [1.0] * 2
    # The rise may be negative; Student's quantile for 11 degrees of freedom.
    x = np.array([-4.0] + [1.0] * (IMAGES - 1))
    half = 2.200985 * x.std(ddof=1) / np.sqrt(IMAGES)
    assert (row["rise_lo"], row["rise_hi"]) == pytest.approx((x.mean() - half, x.mean() + half), rel=1e-5)


def test_the_exact_gradient_of_a_model_has_a_row_only_where_it_is_alone(folder):
    assert [names[::2] for names, _ in matrix(folder).rows] == [
        ("BP", "its own feedback"),
        ("frSF", "its own feedback"),
    ]


def test_an_attack_that_the_filter_chooses_is_explained_and_the_nearest_epsilon_taken(folder, tmp_path):
    assert [row["epsilon"] for row in matrix(folder, "?p=gap&a=pgd&e=0.1").table.rows] == ["0.1"] * 3
    alone = Store(str(tmp_path / "store"))
    put(alone, "bp", "feedback", 0, "pgd")
    assert matrix(tmp_path / "store") is None


@pytest.mark.parametrize(
    ("value", "printed"),
    [
        (0.0004321, ["0.00043", "[0.00022, 0.00086]"]),
        (0.04321, ["0.043", "[0.022, 0.086]"]),
        (0.4321, ["0.43", "[0.22, 0.86]"]),
        (43.21, ["43.2", "[21.6, 86.4]"]),
        (0.0, ["0.00", "[0.00, 0.00]"]),
    ],
)
def test_the_small_norms_of_a_sure_model_are_printed_as_no_zeros(value, printed):
    number = Interval(value=value, lo=value / 2, hi=value * 2, n=100, seeds=1, method="student")
    assert geometry._lines(number, share=False) == printed


def test_the_export_has_every_epsilon_before_and_after_a_merge(folder, tmp_path, capsys):
    names = ("rule", "gradient", "epsilon", *tables.MEASURES, "predicted_hi", "images", "seeds")
    tables_of = []
    for turn in range(2):
        assert main(["export", str(folder), "--what", "geometry", "--out", str(tmp_path / "g.csv")]) == 0
        rows = list(csv.DictReader((tmp_path / "g.csv").open()))
        tables_of.append([[row[name] for name in names] for row in rows])
        if not turn:
            assert compact.compact(Store(str(folder))).jobs == 12
    assert tables_of[0] == tables_of[1]
    assert len(tables_of[0]) == 6
    assert tables_of[0][0][:3] == ["bp", "feedback", "0.05"]
    assert float(tables_of[0][0][3]) == pytest.approx(NUMBERS["bp", "feedback"][..., 0].mean())
    assert main(["export", str(folder), "--what", "outcomes", "--out", str(tmp_path / "o.csv")]) == 0
    capsys.readouterr()
    known = [row for row in csv.DictReader((tmp_path / "o.csv").open()) if row["grad_l1"]]
    assert len(known) == 3 * 2 * 2 * IMAGES


def test_stores_that_are_shown_together_have_the_measurements_of_each(folder, tmp_path):
    other = tmp_path / "other"
    put(Store(str(other)), "bp", "feedback", 0, "pgd")
    joined = matrix(opened([str(folder), str(other)]))
    assert [row["rule"] for row in joined.table.rows] == ["BP", "frSF", "frSF"]


def test_a_mean_of_numbers_of_any_size_has_the_interval_of_a_gap_to_zero():
    x = np.random.default_rng(0).uniform(0, 1, (3, 40))
    mean, expected = mean_of(x), gap(x, np.zeros_like(x))
    assert (mean.value, mean.lo, mean.hi, mean.method) == pytest.approx(
        (expected.value, expected.lo, expected.hi, "two-way")
    )
    scaled = mean_of(1000 * x - 5000)
    assert (scaled.lo, scaled.hi) == pytest.approx((1000 * mean.lo - 5000, 1000 * mean.hi - 5000))
    one, of_images = mean_of(x[:1]), gap(x[:1], np.zeros((1, 40)))
    assert (one.lo, one.hi, one.method) == pytest.approx((of_images.lo, of_images.hi, "student"))
    with pytest.raises(ValueError, match=r"finite numbers \[seeds, images\]"):
        mean_of(np.full((1, 3), np.nan))

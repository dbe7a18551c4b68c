"""The report's first screen: a figure and a table of what attacks leave, held against the outcomes themselves."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from browser import look, opened
from stores import fill

from orchestrator.pages import overview
from orchestrator.pages.context import context_of
from orchestrator.pages.telling_epsilon import halving
from orchestrator.reports.static import write_report
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store, tables
from signsym_core.auditing.evidence import Evidence, Run
from signsym_core.statistics.intervals import interval

#: Of each rule under two attacks the share of robust images at ε = 0.1, along each gradient.
STRONG, WEAK = {"bp": (0.4, 0.4), "usf": (0.8, 0.3)}, {"bp": (0.6, 0.6), "usf": (0.9, 0.5)}


def shares(by_rule):
    return {
        (rule, gradient): {0.0: 0.97, 0.1: share, 0.3: 0.1}
        for rule, pair in by_rule.items()
        for gradient, share in zip(("feedback", "exact"), pair, strict=True)
    }


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    folder = tmp_path_factory.mktemp("overview") / "store"
    fill(folder, shares(STRONG), seeds=(0, 1, 2), images=200, attack="apgd", steps=20)
    return fill(folder, shares(WEAK), seeds=(0, 1, 2), images=200, draw=1, attack="pgd", steps=5)


def outcomes(folder, rule, gradient, attack, epsilon):
    """[seeds, images], straight from the files."""
    results = Store(str(folder)).results()
    kept = results[(results.rule == rule) & (results.gradient == gradient) & (results.attack == attack)]
    cells = kept[kept.epsilon == epsilon].sort_values("seed")["cell"]
    rows = Store(str(folder)).table("outcomes", tables.OUTCOMES).to_pandas()
    return np.array([rows[rows.cell == cell].sort_values("image")["robust"].to_numpy(float) for cell in cells])


def test_each_number_is_that_of_the_strongest_attack_along_its_gradient(store):
    figure, matrix = overview.blocks(context_of(LiveStore(str(store)), ""))
    assert [row["rule"] for row in matrix.table.rows] == ["BP", "uSF"]
    for rule, row in zip(("bp", "usf"), matrix.table.rows, strict=True):
        assert row["epsilon"] == "0.1"
        for gradient in ("feedback", "exact"):
            expected = interval(outcomes(store, rule, gradient, "apgd", 0.1))
            assert (row[gradient], row[f"{gradient}_lo"], row[f"{gradient}_hi"]) == pytest.approx(
                (expected.value, expected.lo, expected.hi)
            )
            assert row[f"{gradient}_attack"] == "apgd"
        assert (row["images"], row["seeds"]) == (200, 3)
    drawn = [trace["x"][0] for trace in figure.figure["data"] if trace.get("error_x") and trace["y"] == ["uSF"]]
    row = matrix.table.rows[1]
    assert drawn == [row["clean"], row["exact"], row["feedback"]]


def test_a_masked_model_is_called_that_with_its_epsilon_as_the_grid_wrote_it(store):
    _, matrix = overview.blocks(context_of(LiveStore(str(store)), ""))
    (_, bp), (_, usf) = matrix.rows
    gap = outcomes(store, "usf", "feedback", "apgd", 0.1).mean() - outcomes(store, "usf", "exact", "apgd", 0.1).mean()
    assert usf[-1].lines == [f"masked gradient, by {100 * gap:.1f} points at ε = 0.1"]
    assert usf[-1].state == "raised"
    assert bp[-1].state != "raised"


def test_long_names_of_models_are_lines_that_a_panel_has_room_for(store, tmp_path):
    long = "a network with a name that says much, of its width and of its depth"
    for number in range(2):
        fill(tmp_path / "store", shares(STRONG), seeds=(0,), images=20, draw=number, backbone=f"{long} {number}")
    figures = [
        overview.blocks(context_of(LiveStore(str(folder)), ""))[0].figure for folder in (store, tmp_path / "store")
    ]
    short, tall = ({name for trace in figure["data"] if trace["y"] for name in trace["y"]} for figure in figures)
    assert not [name for name in short if name and "<br>" in name]
    names = [name.split("<br>") for name in tall if name]
    assert max(len(line) for lines in names for line in lines) <= 34
    assert " ".join(names[0]).startswith(long)
    rows, more = len(names), max(map(len, names)) - 1
    assert more >= 2
    assert figures[1]["layout"]["height"] == figures[0]["layout"]["height"] + 30 * (rows - 2) + 15 * more * rows


def test_a_score_that_was_not_run_is_no_number(tmp_path):
    alone = {key: value for key, value in shares(STRONG).items() if key[1] == "feedback"}
    figure, matrix = overview.blocks(context_of(LiveStore(str(fill(tmp_path / "store", alone, images=200))), ""))
    assert [entries[2].lines for _, entries in matrix.rows] == [["not run"], ["not run"]]
    assert "not run" in figure.described
    assert all("exact" not in row for row in matrix.table.rows)


def test_a_store_without_attacks_has_no_such_figure(tmp_path):
    clean = {("bp", "none"): {0.0: 0.9}}
    assert overview.blocks(context_of(LiveStore(str(fill(tmp_path / "store", clean, attack="none"))), "")) == []


def run(gradient, epsilon, robust):
    outcomes = np.repeat([[1.0, 0.0]], [robust, 10 - robust], axis=1)
    return Run(
        attack="pgd",
        parameters="{}",
        gradient=gradient,
        epsilon=epsilon,
        seeds=(0,),
        images=np.arange(10),
        outcomes=outcomes,
    )


def test_the_epsilon_is_where_the_gradients_differ_most_over_all_models():
    one = Evidence(
        runs=(run("feedback", 0.1, 9), run("exact", 0.1, 3), run("feedback", 0.2, 5), run("exact", 0.2, 2)), chance=0.1
    )
    two = Evidence(
        runs=(run("feedback", 0.1, 4), run("exact", 0.1, 4), run("feedback", 0.2, 9), run("exact", 0.2, 1)), chance=0.1
    )
    assert overview.common_epsilon([one]) == 0.1
    assert overview.common_epsilon([one, two]) == 0.2
    # Where no two gradients can be compared, the middle of the curve.
    bare = Evidence(runs=tuple(run("feedback", epsilon, 5) for epsilon in (0.1, 0.2, 0.3, 0.5)), chance=0.1)
    assert overview.common_epsilon([bare]) == 0.2
    assert overview.common_epsilon([Evidence(runs=(run("none", 0.1, 5),), chance=0.1)]) is None


def test_it_stands_first_on_the_reports_index_and_fits_a_screen(store, tmp_path, chromium):
    index = write_report(LiveStore(str(store)), tmp_path / "out", title="t")
    with opened(chromium) as tab:
        tab.set_viewport_size({"width": 1280, "height": 800})
        look(tab, index.as_uri())
        cards = tab.locator("main > section")
        assert cards.nth(0).locator(".js-plotly-plot").count() == 1
        last = cards.nth(1).locator("table.overview tr").last.bounding_box()
        assert last["y"] + last["height"] <= 800
        assert tab.wrong == []
    rows = list(csv.DictReader((tmp_path / "out/tables/index-overview-rows.csv").open()))
    assert [row["rule"] for row in rows] == ["BP", "uSF"]


def test_radii_in_l2_are_neither_compared_with_those_in_linf_nor_called_the_same(tmp_path):
    """An attack in L2 that breaks everything at a radius of 0.1 says nothing about the radius of 0.1 in L∞."""
    folder = tmp_path / "store"
    fill(folder, shares(STRONG), seeds=(0, 1, 2), images=200, attack="pgd")
    alone = overview.blocks(context_of(LiveStore(str(folder)), ""))
    near = {(rule, gradient): {0.05: 0.1, 0.1: 0.0} for rule in ("bp", "usf") for gradient in ("feedback", "exact")}
    fill(folder, near, seeds=(0, 1, 2), images=200, draw=1, attack="pgd", norm="l2", attack_params='{"norm": "l2"}')
    fill(folder, near, seeds=(0, 1, 2), images=200, draw=2, attack="fgsm", norm="l2", attack_params='{"norm": "l2"}')
    context = context_of(LiveStore(str(folder)), "")
    both = overview.blocks(context)
    assert [block.table.rows for block in both] == [block.table.rows for block in alone]
    index, lines = context.query.index, context.lines()
    assert {index.labels.of(line, "attack") for line in lines} == {"pgd(defaults)", "pgd(norm=l2)", "fgsm(norm=l2)"}
    # BP keeps at most half from 0.05 on in L2, and from 0.1 on in L∞.
    assert halving(context.query, lines) == 0.1
    assert halving(context.query, [line for line in lines if "norm" in line.attack_params]) == 0.05


def test_an_epsilon_that_no_certificate_reaches_is_not_one_where_an_attack_leaves_little(tmp_path):
    folder, settings = tmp_path / "store", {"norm": "l2", "seeds": (0,)}
    fill(folder, {("bp", "exact"): {0.05: 0.9, 0.1: 0.2}}, attack="pgd", attack_params='{"norm": "l2"}', **settings)
    fill(folder, {("bp", "none"): {0.05: 0.2, 0.1: 0.0}}, draw=1, attack="smoothing", **settings)
    context = context_of(LiveStore(str(folder)), "")
    assert halving(context.query, context.lines()) == 0.1
    assert halving(context.query, [line for line in context.lines() if line.attack == "smoothing"]) == 0.05

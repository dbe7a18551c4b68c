"""Curves and the report, on small tables made by hand: what is shown is what was stored, and nothing runs."""

from __future__ import annotations

import csv
import re
from datetime import UTC, datetime

import numpy as np
import pandas as pd
import pytest

from orchestrator import tables
from orchestrator.explorer import figures
from orchestrator.explorer.query import AmbiguousCurveError, clean_scores, curves
from orchestrator.explorer.static import write_report
from signsym_core.stats import gap, interval

#: Share of robust images for each rule, gradient and epsilon.
SHARES = {
    ("bp", "feedback"): {0.0: 1.0, 0.1: 0.4},
    ("bp", "exact"): {0.0: 1.0, 0.1: 0.4},
    ("usf", "feedback"): {0.0: 0.95, 0.1: 0.8},
    ("usf", "exact"): {0.0: 0.95, 0.1: 0.35},
}


def frames(shares=None, seeds=(0, 1, 2), images=60, **changes):
    """The store's two frames, with `images` outcomes of each cell drawn from a fixed seed."""
    generator = np.random.default_rng(0)
    rows, outcomes = [], []
    for (rule, gradient), by_epsilon in (shares or SHARES).items():
        for epsilon, share in by_epsilon.items():
            for seed in seeds:
                cell = f"{rule}-{gradient}-{epsilon}-{seed}"
                robust = generator.random(images) < share
                row = dict.fromkeys(tables.RESULTS.names, "{}") | {"cell": cell, "job": f"job-{cell}"}
                row |= {"task": "classification", "dataset": "digits", "backbone": "smallcnn", "metric": "top1"}
                row |= {"rule": rule, "attack": "pgd", "gradient": gradient, "seed": seed, "weights": "null"}
                row |= {"epsilon": epsilon, "epsilon_label": str(epsilon), "value": robust.mean(), "n": images}
                row |= {"chance": 0.1, "reach": 1.0, "finished_at": datetime.now(UTC)} | changes
                rows.append(row)
                outcomes += [
                    {"cell": cell, "image": at, "robust": bool(r), "ap": None, "linf": epsilon, "zero_grad": None}
                    for at, r in enumerate(robust)
                ]
    return pd.DataFrame(rows, columns=tables.RESULTS.names), pd.DataFrame(outcomes)


def line(found, rule, gradient):
    return next(c for c in found if (c.rule, c.gradient) == (rule, gradient))


def matrix(outcomes, rule, gradient, epsilon, seeds=(0, 1, 2)):
    cells = [f"{rule}-{gradient}-{epsilon}-{seed}" for seed in seeds]
    return np.array([outcomes.loc[outcomes["cell"] == cell, "robust"].to_numpy(float) for cell in cells])


def test_points_are_the_two_way_interval_of_their_outcomes_and_gaps_are_paired():
    results, outcomes = frames()
    found = curves(results, outcomes)
    point = line(found, "usf", "feedback").points[1]
    assert point.score == interval(matrix(outcomes, "usf", "feedback", 0.1))
    bp = matrix(outcomes, "bp", "feedback", 0.1)
    assert point.over_bp == gap(matrix(outcomes, "usf", "feedback", 0.1), bp)
    assert point.over_exact == gap(matrix(outcomes, "usf", "feedback", 0.1), matrix(outcomes, "usf", "exact", 0.1))
    assert line(found, "bp", "exact").points[1].over_bp is None


def test_a_number_does_not_depend_on_what_else_is_shown():
    results, outcomes = frames()
    alone = results[(results["rule"] == "usf") & (results["gradient"] == "exact")]
    assert curves(alone, outcomes)[0].points[1].score == line(curves(results, outcomes), "usf", "exact").points[1].score


def test_two_values_for_one_seed_and_epsilon_are_refused():
    results, outcomes = frames()
    again = results.iloc[[3]].assign(cell="other", value=0.123)
    with pytest.raises(AmbiguousCurveError, match=r"seed 0, epsilon 0\.1"):
        curves(pd.concat([results, again]), outcomes)


def test_a_missing_seed_shows_in_its_point_and_only_there():
    results, outcomes = frames()
    results = results[results["cell"] != "usf-exact-0.1-2"]
    points = line(curves(results, outcomes), "usf", "exact").points
    assert [point.score.seeds for point in points] == [3, 2]


def test_parameters_are_named_where_they_differ():
    results, outcomes = frames()
    assert {c.rule_label for c in curves(results, outcomes)} == {"bp", "usf"}
    other, more = frames({("usf", "exact"): {0.0: 1.0}}, rule_params='{"scale":"xavier"}')
    other["cell"] += "x"
    more["cell"] += "x"
    both = curves(pd.concat([results, other]), pd.concat([outcomes, more]))
    assert {c.rule_label for c in both} == {"bp", "usf(defaults)", "usf(scale=xavier)"}


def test_the_same_number_is_in_hover_table_and_csv(tmp_path):
    results, outcomes = frames()
    page = write_report(results, outcomes, tmp_path / "out", title="t", command="c").read_text()
    point = line(curves(results, outcomes), "usf", "feedback").points[1]
    text = figures.percent(point.score)
    assert text in figures.hover(line(curves(results, outcomes), "usf", "feedback"), point)
    assert f"<td>{text}</td>" in page
    with (tmp_path / "out/curves.csv").open() as file:
        rows = {(r["rule"], r["gradient"], r["epsilon"]): r for r in csv.DictReader(file)}
    assert float(rows["usf", "feedback", "0.1"]["value"]) == point.score.value


def test_the_finding_is_computed_and_claims_no_more_than_the_interval(tmp_path):
    page = write_report(*frames(), tmp_path / "a", title="t", command="c").read_text()
    assert "is gradient masking, not robustness" in page
    same = {key: {0.0: 1.0, 0.1: 0.4} for key in SHARES}
    page = write_report(*frames(same), tmp_path / "b", title="t", command="c").read_text()
    assert "does not exclude zero with 3 seeds: undecided" in page
    assert "points is gradient masking" not in page
    only = {key: value for key, value in SHARES.items() if key[1] == "exact"}
    assert "What the numbers say" not in write_report(*frames(only), tmp_path / "c", title="t", command="c").read_text()


def test_hostile_names_do_not_run_and_nothing_is_asked_of_other_hosts(tmp_path):
    hostile = "</script><script>alert(1)</script>"
    results, outcomes = frames(dataset=hostile)
    page = write_report(results, outcomes, tmp_path / "out", title=hostile, skipped=[hostile], command=hostile)
    text = page.read_text()
    assert "<script>alert" not in text
    assert not re.findall(r"""(?:src|href)\s*=\s*["']?(?:https?:)?//""", text)
    assert '"showSendToCloud": false' in text


def test_every_graph_has_a_role_a_label_and_a_table(tmp_path):
    page = write_report(*frames(), tmp_path / "out", title="t", command="c").read_text()
    graphs = re.findall(r'<div class="graph" role="img" aria-label="([^"]+)"', page)
    assert len(graphs) == 2
    assert all("Robust accuracy" in words for words in graphs)
    assert page.count("The same numbers as a table") == 2


def test_an_empty_store_says_what_to_run(tmp_path):
    results, outcomes = frames()
    page = write_report(results.iloc[:0], outcomes.iloc[:0], tmp_path / "out", title="t", missing=7, command="c")
    assert "signsym sweep grids/quickstart.yaml" in page.read_text()
    assert '<strong class="warn">7 without</strong>' in page.read_text()


def test_clean_scores_are_those_of_attack_none():
    results, outcomes = frames({("usf", "none"): {0.0: 0.9}}, attack="none")
    ((title, rule, score),) = clean_scores(results, outcomes)
    assert (title, rule) == ("smallcnn / digits", "usf")
    assert score == interval(matrix(outcomes, "usf", "none", 0.0))


def test_rules_keep_their_colours():
    assert [figures.style(rule)[0] for rule in ("bp", "frsf")] == ["#000000", "#D55E00"]
    assert figures.style("someones-own") == figures.style("someones-own")

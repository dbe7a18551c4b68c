"""What is shown is what was stored: one number in hover, table, CSV, PDF's twin and LaTeX, whatever else is shown."""

from __future__ import annotations

import csv
import io
import json
from statistics import NormalDist

import numpy as np
import pytest
from stores import block, fill, keep_grid, page

from orchestrator import pages
from orchestrator.commands.cli import main
from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Matrix, Words, as_csv
from orchestrator.drawing.panels import axes_of
from orchestrator.pages import overview
from orchestrator.pages.context import context_of
from orchestrator.pages.pictures import _caption
from orchestrator.results.examples import Example
from orchestrator.results.gaps import gap_lines
from orchestrator.results.line import GRID_KEY
from orchestrator.results.live_store import LiveStore
from orchestrator.store import Store, tables
from signsym_core.statistics.intervals import gap, interval


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "store")


def curve(data, rule, gradient):
    query = data.snapshot.query()
    found = query.curves(query.index.chosen(rule=(rule,), gradient=(gradient,)))
    return found[0]


def x_of(folder, rule, gradient, epsilon):
    outcomes = Store(str(folder)).outcomes()
    cells = [f"job-{rule}-{gradient}-{seed}-0-{epsilon}" for seed in range(3)]
    return np.array([outcomes.loc[outcomes["cell"] == cell, "robust"].to_numpy(float) for cell in cells])


def test_points_are_the_two_way_interval_of_their_outcomes_and_gaps_are_paired(folder):
    data = LiveStore(str(folder))
    point = curve(data, "usf", "feedback").points[1]
    x, bp, exact = (x_of(folder, *line, 0.1) for line in (("usf", "feedback"), ("bp", "feedback"), ("usf", "exact")))
    assert point.score == interval(x)
    assert point.over_bp == gap(x, bp)
    assert point.over_exact == gap(x, exact)
    assert curve(data, "bp", "exact").points[1].over_bp is None


def test_hiding_a_rule_changes_no_other_number(folder):
    def traces(search):
        figure = json.loads(json.dumps(block(page(folder, search), Figure).figure))
        return {
            (trace["legendgroup"], trace["xaxis"], trace["mode"], len(trace["x"])): trace["y"]
            for trace in figure["data"]
            if trace["legendgroup"] == "usf"
        }

    both, alone = traces(""), traces("?r=usf")
    assert both == alone
    assert len(alone) >= 4


def test_holm_looks_at_the_panel_and_not_at_what_is_shown(folder):
    query = LiveStore(str(folder)).snapshot.query()
    lines = list(query.index.ordered)
    every = {line.curve.line: line for line in gap_lines(query, lines, "bp")}
    one = gap_lines(query, [next(line for line in lines if line.rule == "usf")], "bp")[0]
    assert one == every[one.curve.line]
    # uSF against BP at two epsilons.
    assert one.family == 2


def test_the_same_number_is_in_hover_table_csv_and_the_papers_figure(folder):
    found = block(page(folder), Figure)
    point = curve(LiveStore(str(folder)), "usf", "feedback").points[1]
    text = style.percent(point.score)
    assert any(text in hover for trace in found.figure["data"] for hover in trace.get("hovertext", ()))
    rows = list(csv.DictReader(io.StringIO(as_csv(found.table))))
    drawn = list(csv.DictReader(io.StringIO(found.drawing.as_csv())))
    (ours,) = (r for r in rows if (r["rule"], r["gradient"], r["ε"]) == ("uSF", "feedback", "0.1"))
    (paper,) = (r for r in drawn if r["rule"] == "uSF" and r["epsilon"] == "0.1" and "feedback" in r["panel"])
    assert float(ours["score"]) == float(paper["value"]) == point.score.value


def test_a_missing_seed_shows_in_its_point_and_only_there(folder):
    fill(folder, {("usf", "exact"): {0.3: 0.2}}, seeds=(0, 1), draw=7)
    points = curve(LiveStore(str(folder)), "usf", "exact").points
    assert [point.score.seeds for point in points] == [3, 3, 2]


def test_parameters_are_named_where_they_differ(folder):
    fill(folder, {("usf", "exact"): {0.0: 1.0}}, draw=8, rule_params='{"scale":"xavier"}')
    labels = LiveStore(str(folder)).snapshot.index.labels
    names = {labels.of(line, "rule") for line in LiveStore(str(folder)).snapshot.index.lines}
    assert names == {"bp", "usf(defaults)", "usf(scale=xavier)"}


@pytest.mark.parametrize(
    "settings",
    [
        {"weights": ['{"published":"IMAGENET1K_V1"}', '{"published":"IMAGENET1K_V2"}']},
        {"finetune": [f'{{"adversarial":{{"epsilon":{e!r},"name":"pgd"}}}}' for e in (8 / 255, 0.03137, 0.0313725)]},
        {"weights": [f'{{"file":"/data/w.safetensors","sha256":"{digit * 64}"}}' for digit in "ab"]},
    ],
)
def test_models_of_two_settings_share_no_title(tmp_path, settings):
    ((column, values),) = settings.items()
    for value in values:
        fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.5}}, seeds=(0,), **{column: value})
    index = LiveStore(str(tmp_path / "store")).snapshot.index
    assert len({index.labels.title(line) for line in index.lines}) == len(index.lines) == len(values)


@pytest.mark.parametrize(
    ("values", "ends"),
    [
        (
            ['{"epochs":9,"lr":0.1}', '{"adversarial":{"epsilon":0.5,"name":"noise"},"epochs":9,"lr":0.1}'],
            ["default adversarial", "adversarial=noise(epsilon=0.5)"],
        ),
        (
            ['{"epochs":9}', '{"epochs":9,"lr":0.1}', '{"epochs":9,"lr":0.1,"steps":3}'],
            ["default lr, steps", "lr=0.1", "lr=0.1, steps=3"],
        ),
    ],
)
def test_a_title_names_of_a_setting_what_differs_alone(tmp_path, values, ends):
    for value in values:
        fill(tmp_path / "store", {("bp", "exact"): {0.1: 0.5}}, seeds=(0,), finetune=value)
    index = LiveStore(str(tmp_path / "store")).snapshot.index
    titles = {line.finetune: index.labels.title(line).partition(" / finetune ")[2] for line in index.lines}
    assert titles == dict(zip(values, ends, strict=True))


def test_retrieval_is_map_at_its_k_and_another_k_is_another_line(tmp_path):
    settings = {"task": "hashing", "metric": "map", "attack": "hag", "dataset": "cifar10"}
    folder = fill(tmp_path / "store", task_params='{"k":500}', **settings)
    fill(folder, draw=3, task_params='{"k":90}', **settings)
    fill(folder, draw=4)
    query = LiveStore(str(folder)).snapshot.query()
    curves = query.curves(query.index.chosen(task=("hashing",)))
    assert {c.score_name for c in curves} == {"mAP@500", "mAP@90"}
    assert len({c.figure for c in curves}) == 2
    assert {c.score_name for c in query.curves(query.index.chosen(task=("classification",)))} == {"robust accuracy"}
    found = block(page(folder, "?task=hashing"), Figure)
    assert "mAP@500" in found.title + found.drawing.quantity
    assert "robust" not in found.title


def test_what_an_attack_certifies_is_no_robust_accuracy(tmp_path):
    folder = fill(tmp_path / "store", {("bp", "none"): {0.1: 0.5}}, attack="smoothing")
    query = LiveStore(str(folder)).snapshot.query()
    assert [curve.score_name for curve in query.curves(query.index.lines)] == ["certified accuracy"]
    example = Example(cell="c", image=0, label="7", predicted="7", clean=b"", adversarial=b"")
    caption = _caption(example, 0, 0.0, query.index.lines[0], {"": 0.0, " under BP": 1.0})
    assert caption.endswith("not certified, certified under BP")


@pytest.mark.parametrize("search", ["?task=hashing", "?task=hashing&over=worst", "overview"])
def test_a_figure_of_several_ks_names_each(tmp_path, search):
    settings = {"task": "hashing", "metric": "map", "attack": "hag"}
    for place, k in enumerate((500, 90)):
        fill(tmp_path / "store", seeds=(0,), draw=place, task_params=f'{{"k":{k}}}', **settings)
    context = context_of(LiveStore(str(tmp_path / "store")), search)
    found = overview.blocks(context)[0] if search == "overview" else block(pages.build(context), Figure)
    assert "mAP@500 / mAP@90 " in found.title
    titles = [axis.get("title", {}).get("text") for axis in axes_of(found.figure).values()]
    assert "mAP@500 / mAP@90" in titles


def test_files_of_older_versions_without_the_tasks_parameters_join_the_defaults(tmp_path):
    folder = fill(tmp_path / "store", seeds=(0,), task_params=None)
    fill(folder, seeds=(1,), draw=2)
    found = page(folder)
    assert {row["seeds"] for row in block(found, Figure).table.rows} == {2}


def test_a_table_tells_not_run_failed_running_and_zero_apart(tmp_path):
    folder = tmp_path / "store"
    grid = keep_grid(folder)
    data = LiveStore(str(folder))
    asked = next(a for a in data.status.planned_cells() if a.seed == 0 and "bp" in a.line and "feedback" in a.line)
    columns = dict(zip(GRID_KEY, asked.line, strict=True)) | {"metric": "top1"}
    shares = {("bp", "feedback"): {0.0: 1.0, 0.1: 0.0}}
    fill(folder, shares, seeds=(0, 1), **{k: v for k, v in columns.items() if k not in ("rule", "gradient")})
    failing = next(a for a in data.status.planned_cells() if "usf" in a.line and "feedback" in a.line)

    failure = dict.fromkeys(tables.FAILURES.names) | {
        "job": failing.job,
        "title": "t",
        "error": "ValueError: no",
    }
    Store(str(folder)).write_table("failures", failing.job, [failure], tables.FAILURES)
    matrix = block(page(folder, "?p=tables&t=all&e=0.1"), Matrix)
    entries = {tuple(names): dict(zip(matrix.header[4:], found, strict=True)) for names, found in matrix.rows}
    by_gradient = {names[3]: found for names, found in entries.items()}
    assert by_gradient["feedback"]["BP"].lines[0].startswith("0.0 [0.0")
    assert by_gradient["feedback"]["uSF"].state == "failed"
    assert "ValueError: no" in by_gradient["feedback"]["uSF"].lines[0]
    assert by_gradient["exact"]["uSF"].state == "not run"
    assert len(grid) == 20
    looks = {by_gradient["feedback"]["BP"].state, "failed", "not run"}
    assert len(looks) == 3


def test_scores_without_a_seed_that_failed_for_good_say_so(tmp_path, capsys):
    folder = tmp_path / "store"
    keep_grid(folder)
    planned = [one for one in LiveStore(str(folder)).status.planned_cells() if "usf" in one.line]
    asked = next(one for one in planned if "feedback" in one.line and one.seed == 0)
    columns = dict(zip(GRID_KEY, asked.line, strict=True)) | {"metric": "top1"}
    columns = {name: value for name, value in columns.items() if name not in ("rule", "gradient")}
    shares = {("usf", "feedback"): {0.0: 1.0, 0.1: 0.5}}
    fill(folder, shares, seeds=(0,), **columns)
    # The fine-tune of the other seed has diverged.
    ((_, job), *_) = next(one for one in planned if one.seed == 1).trainings
    failure = dict.fromkeys(tables.FAILURES.names) | {"job": job, "title": "t", "error": "NonFiniteWeightsError: w"}
    Store(str(folder)).write_table("failures", job, [failure], tables.FAILURES)
    told = "uSF on smallcnn / digits lacks seed 1 (its fine-tune: NonFiniteWeightsError: w). The explorer's page Runs"
    for search in ("", "?p=tables", "?p=training"):
        warnings = [each for each in page(folder, search).blocks if isinstance(each, Words) and each.tone == "warning"]
        assert told in warnings[0].sentences[0]
    assert not any(
        "lacks seed" in str(each) for search in ("?s=0", "?a=pgd&s=0") for each in page(folder, search).blocks
    )
    assert main(["export", str(folder), "--what", "curves", "--out", str(tmp_path / "curves.csv")]) == 0
    assert f"1 job of {folder} failed for good, so that seeds may be missing" in capsys.readouterr().out
    # A seed that has results lacks nothing, whatever failed before.
    fill(folder, shares, seeds=(1,), **columns)
    assert not any("lacks seed" in str(each) for each in page(folder).blocks)


def test_points_that_no_certificate_reaches_say_so_wherever_their_curve_is_drawn(tmp_path):
    shares = {0.1: 0.5, 0.25: 0.0, 1.0: 0.0}
    columns = {"norm": "l2", "attack": "smoothing", "seeds": (0,)}
    folder = fill(tmp_path / "store", {("bp", "none"): shares}, attack_params='{"sigma": 0.1}', **columns)
    fill(folder, {("bp", "none"): {**shares, 0.25: 0.1}}, draw=1, attack_params='{"samples": 500}', **columns)
    # p^1000 = 0.001 where all of 1,000 draws agree, and p^500 of 500.
    far, farther = (
        sigma * NormalDist().inv_cdf(0.001 ** (1 / samples)) for sigma, samples in ((0.1, 1000), (0.25, 500))
    )
    for search in ("", "?p=tables&t=all&e=1"):
        (words, *_) = (
            each for each in page(folder, search).blocks if isinstance(each, Words) and each.tone == "warning"
        )
        said = [sentence for sentence in words.sentences if "certify no image" in sentence]
        assert len(said) == 2
        assert f"500 samples with sigma = 0.25 certify no image from ε = {farther:.4g} on: its 0 % at 1 says" in said[0]
        radii = "1" if "tables" in search else "0.25, 1"
        assert f"with sigma = 0.1 certify no image from ε = {far:.4g} on: its 0 % at {radii} says" in said[1]


def test_a_job_that_runs_is_running(tmp_path, monkeypatch):
    folder = tmp_path / "store"
    keep_grid(folder)
    asked = next(LiveStore(str(folder)).status.planned_cells())
    sign = {"running": [{"job": "of-fewer-cells", "work": asked.work, "title": "t"}]}
    monkeypatch.setattr("orchestrator.results.status.alive", lambda _store: [sign])
    status = LiveStore(str(folder)).status
    assert status.state(asked) == ("running", "")
    assert status.trials == 1


def test_bold_needs_a_gap_that_excludes_zero(tmp_path):
    clear = {("bp", "none"): {0.0: 0.5}, ("usf", "none"): {0.0: 0.99}}
    level = {("bp", "none"): {0.0: 0.9}, ("usf", "none"): {0.0: 0.91}}
    for shares, best in ((clear, True), (level, False)):
        folder = fill(tmp_path / str(best), shares, images=60, attack="none")
        matrix = block(page(folder, "?p=tables"), Matrix)
        states = [entry.state for entry in matrix.rows[0][1]]
        assert ("best" in states) is best


@pytest.mark.parametrize("search", ["", "?p=gap"])
def test_radii_of_different_norms_have_axes_of_their_own(folder, search):
    shares = {(rule, "none"): {0.0: 1.0, 1.5: 0.5} for rule in ("bp", "usf")}
    fill(folder, shares, draw=1, attack="hopskipjump", norm="l2")
    layout = block(page(folder, search), Figure).figure["layout"]
    axes = [axis for name, axis in sorted(layout.items()) if name.startswith("xaxis")]
    told = {axis["title"]["text"]: tuple(axis["ticktext"]) for axis in axes if axis["ticktext"]}
    assert told == {"ε (L∞, [0, 1] pixels)": ("clean", "0.1"), "ε (L2, [0, 1] pixels)": ("clean", "1.5")}

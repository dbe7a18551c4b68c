"""The figures for a paper show what those on screen show: seeds, reference lines, rings, and what a panel rests on."""

from __future__ import annotations

import csv
import io
from dataclasses import replace
from math import nan

import matplotlib as mpl
import pytest
from matplotlib.colors import to_hex
from stores import block, fill, page

from orchestrator.drawing import paper, style
from orchestrator.drawing.blocks import Figure
from orchestrator.drawing.figure_data import of_curves
from orchestrator.results.live_store import LiveStore

SHARES = {(rule, "exact"): {0.0: 1.0, 0.1: 0.6, 0.2: 0.4} for rule in ("bp", "usf")}


def curves(folder):
    query = LiveStore(str(folder)).snapshot.query()
    return query.curves(query.index.ordered)


def plots(drawing, width=6.75):
    """The axes of the panels."""
    with mpl.rc_context(paper._SETTINGS):
        figure = paper._figure(drawing, width)
        figure.canvas.draw()
    return [plot for plot in figure.axes if plot.get_visible()]


def words(plot):
    return [text.get_text() for text in plot.texts]


@pytest.fixture
def folder(tmp_path):
    return fill(tmp_path / "store", SHARES)


def test_every_seed_has_a_dash_of_its_own_and_many_a_line_together(folder, tmp_path):
    found = curves(folder)
    (plot,) = plots(of_curves([("a / b / c", found)], 1))
    dashes = [line for line in plot.lines if line.get_marker() == "_"]
    for curve, line in zip(found, dashes, strict=True):
        assert list(line.get_ydata()) == [value for point in curve.points for value in point.by_seed.values()]
        assert to_hex(line.get_color()) == style.style(curve.rule)[0].lower()
    (curve,) = curves(fill(tmp_path / "many", {("bp", "exact"): {0.1: 0.6}}, seeds=range(11), images=20))
    (plot,) = plots(of_curves([("a", [curve])], 1))
    seeds = curve.points[0].by_seed.values()
    assert [min(seeds), max(seeds)] in [list(line.get_ydata()) for line in plot.lines]
    assert "_" not in [line.get_marker() for line in plot.lines]
    at = replace(curve.points[0], epsilon=0.2, label="0.2", by_seed=dict(enumerate([0.75, *[0.5] * 10])))
    (plot,) = plots(of_curves([("a", [replace(curve, points=[curve.points[0], at])])], 1))
    (ranges,) = [line for line in plot.lines if line.get_alpha() == 0.6]
    assert str(ranges.get_ydata().tolist()) == str([min(seeds), max(seeds), nan, 0.5, 0.75])
    assert ranges.get_xdata().tolist() == [0, 0, 0, 1, 1]


def test_a_band_goes_along_the_lower_ends_of_the_intervals_and_back_along_the_upper(folder):
    found = curves(folder)
    (plot,) = plots(of_curves([("a", found)], 1))
    (bands,) = plot.collections
    for curve, outline, colour in zip(found, bands.get_paths(), bands.get_facecolor(), strict=True):
        scores = [point.score for point in curve.points]
        heights = [*(score.lo for score in scores), *(score.hi for score in reversed(scores))]
        assert outline.vertices[:6].tolist() == [[x, y] for x, y in zip([0, 1, 2, 2, 1, 0], heights, strict=True)]
        assert to_hex(colour) == style.style(curve.rule)[0].lower()
    # Of differences the axis has room for them.
    plot, *_ = plots(block(page(folder, "?p=gap"), Figure).drawing)
    lower, upper = plot.get_ylim()
    ends = [y for bands in plot.collections for outline in bands.get_paths() for y in outline.vertices[:, 1]]
    assert lower < min(ends) < max(ends) < upper


def traces(found):
    """What figures of a page draw, on screen by the look of each trace and on paper by the kind of each artist."""
    figure = block(found, Figure)
    screen = {
        "bands": sum(trace.get("fill") == "toself" for trace in figure.figure["data"]),
        "rings": sum(trace.get("marker", {}).get("symbol") == "circle-open" for trace in figure.figure["data"]),
        "seeds": sum(trace["mode"] == "lines" and "fill" not in trace for trace in figure.figure["data"]),
    }
    shown = plots(figure.drawing)
    lines = [line for plot in shown for line in plot.lines]
    printed = {
        "bands": sum(len(bands.get_paths()) for plot in shown for bands in plot.collections),
        "rings": sum(line.get_markersize() == 8 for line in lines),
        "seeds": sum(line.get_marker() == "_" for line in lines),
    }
    return screen, printed


def test_bands_seeds_and_rings_can_be_left_out_of_both(tmp_path):
    folder = fill(tmp_path / "store", images=300)
    whole = traces(page(folder))
    # Two rules under two gradients, of which uSF's own feedback raises a check.
    assert whole == ({"bands": 4, "rings": 1, "seeds": 4}, {"bands": 4, "rings": 1, "seeds": 4})
    for name in ("bands", "seeds", "rings"):
        assert traces(page(folder, f"?hide={name}")) == tuple(kept | {name: 0} for kept in whole)
    rows = block(page(folder), Figure).table.rows
    assert block(page(folder, "?hide=bands,seeds,rings"), Figure).table.rows == rows
    screen, printed = traces(page(folder, "?p=gap&hide=bands"))
    assert not screen["bands"]
    assert not printed["bands"]
    assert all(side["bands"] for side in traces(page(folder, "?p=gap")))


def test_reference_lines_are_chance_and_the_usual_radius_where_it_is_one(folder, tmp_path):
    (plot,) = plots(of_curves([("a", curves(folder))], 1))
    dotted = [line for line in plot.lines if line.get_linestyle() == ":" and len(line.get_xdata()) == 2]
    assert {to_hex(line.get_color()) for line in dotted} == {style.REFERENCE}
    across, upright = dotted
    assert list(across.get_ydata()) == [0.1, 0.1]
    # Between the clean image and 0.1, which stand a step apart.
    assert upright.get_xdata()[0] == pytest.approx((8 / 255) / 0.1)
    assert words(plot) == ["chance", "8/255"]
    far = fill(tmp_path / "l2", SHARES, norm="l2")
    small = fill(tmp_path / "small", {("bp", "exact"): {0.0: 1.0, 0.01: 0.9}})
    for other in (far, small):
        (plot,) = plots(of_curves([("a", curves(other))], 1))
        assert words(plot) == ["chance"]


def test_a_panel_says_what_it_rests_on_and_what_was_not_run(folder, tmp_path):
    large = fill(tmp_path / "large", SHARES, images=1000)
    drawing = of_curves([("a / b / pgd", curves(folder)), ("c / d / pgd", curves(large)), ("e / f / pgd", [])], 3)
    titles = [plot.get_title().splitlines() for plot in plots(drawing)]
    assert [title[-1] for title in titles] == ["few: n = 60, 3 seeds", "n = 1,000, 3 seeds", "not run"]


def test_flagged_points_have_the_ring_that_they_have_on_screen(folder):
    found = curves(folder)
    rings = {(found[1].line, 0.2): ("not_monotone",)}
    drawing = of_curves([("a", found)], 1, rings)
    (plot,) = plots(drawing)
    (ring,) = [line for line in plot.lines if to_hex(line.get_markeredgecolor()) == style.RING.lower()]
    assert list(ring.get_ydata()) == [found[1].points[2].score.value]
    assert list(ring.get_xdata()) == [2]
    flags = [row["flags"] for row in csv.DictReader(io.StringIO(drawing.as_csv()))]
    assert flags == ["", "", "", "", "", "not_monotone"]


def test_axes_name_percent_or_points_and_epsilons_have_no_score(folder):
    (plot,) = plots(of_curves([("a", curves(folder))], 1))
    assert plot.get_ylabel() == "robust accuracy, %"
    assert plot.get_xlabel() == "ε (L∞, [0, 1] pixels)"
    plot, *_ = plots(block(page(folder, "?p=gap"), Figure).drawing)
    assert plot.get_ylabel() == "rule minus BP, points"
    assert plot.get_xlabel() == "ε (L∞, [0, 1] pixels)"
    assert plot.yaxis.get_major_formatter()(0.2, 0) == "+20"


def test_the_csv_has_epsilon_as_a_number_and_the_axis_has_it_as_clean(folder):
    drawing = of_curves([("a", curves(folder))], 1)
    rows = list(csv.DictReader(io.StringIO(drawing.as_csv())))
    assert [row["epsilon"] for row in rows] == ["0", "0.1", "0.2"] * 2
    assert rows[1]["by_seed"].startswith("0: 0.")
    (plot,) = plots(drawing)
    assert [label.get_text() for label in plot.get_xticklabels()] == ["clean", "0.1", "0.2"]


@pytest.mark.slow
def test_numbers_and_view_stand_beside_the_figures(folder, tmp_path):
    files = paper.save(of_curves([("a", curves(folder))], 1), tmp_path / "stem", "?p=curves")
    assert [path.name for path in files[-2:]] == ["stem.csv", "stem.json"]
    assert len(files) == 6
    assert all(path.exists() for path in files)
    # PDF has the layout of SVG, which is that of a figure by itself.
    assert files[2].read_bytes() == paper.drawn(of_curves([("a", curves(folder))], 1), 6.75, "svg")

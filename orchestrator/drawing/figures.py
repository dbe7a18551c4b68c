"""Figures of curves: score against epsilon, a panel for each attack, with bands and seeds."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from orchestrator.drawing import style
from orchestrator.drawing.axes import Axes, Axis
from orchestrator.drawing.panels import PanelCurves, Panels, Spec, Trace
from orchestrator.results.curve import Curve
from signsym_core.statistics.intervals import Interval

#: Flags of a point, by its line and epsilon.
Rings = Mapping[tuple[int, float], Sequence[str]]
#: The L∞ radius that robustness is most often quoted at.
USUAL = 8 / 255
#: More seeds than these are drawn as the range from the lowest to the highest.
MANY = 10


def curve_figure(
    panels: Sequence[PanelCurves],
    columns: int,
    x: str = "ordinal",
    seed_lines: bool = False,
    rings: Rings | None = None,
    hide: Collection[str] = (),
) -> Spec:
    """Score over epsilon with its band, panels row by row, without what `hide` names of HIDDEN.

    `x` is "ordinal", "linear" or "log".
    """
    figure = Panels(panels, columns)
    axes = Axes([curve for _, curves in panels for curve in curves], x)
    for panel, (_, curves) in enumerate(panels):
        axis = axes.of(curves)
        across = axis.dressed(titled=axes.several or panel + columns >= len(panels), columns=columns)
        figure.dress(panel, across, figure.scores)
        for curve in curves:
            figure.add(panel, *_line(curve, axis, seed_lines, rings or {}, hide))
        if curves:
            figure.reference(panel, "y", curves[0].chance, "chance")
        if curves and axis.within(USUAL) and {curve.norm for curve in curves} == {"linf"}:
            # On a logarithmic axis plotly wants the exponent for shapes.
            place = float(np.log10(USUAL)) if axis.scale == "log" else axis.position(USUAL)
            figure.reference(panel, "x", place, "8/255")
    return figure.figure()


def _line(curve: Curve, axis: Axis, seed_lines: bool, rings: Rings, hide: Collection[str]) -> list[Trace]:
    flags = [rings.get((curve.line, point.epsilon), ()) for point in curve.points]
    x = [axis.position(point.epsilon) for point in curve.points]
    texts = [style.hover(curve, point, raised) for point, raised in zip(curve.points, flags, strict=True)]
    band, line = traces(curve, x, [point.score for point in curve.points], texts)
    line["customdata"] = [point.cell for point in curve.points]
    if any(map(curve.thin, curve.points)):
        symbol = style.style(curve.rule)[2]
        symbols = [f"{symbol}-open" if curve.thin(point) else symbol for point in curve.points]
        line["marker"]["symbol"] = symbols
    ringed = [(position, point) for position, point, raised in zip(x, curve.points, flags, strict=True) if raised]
    ring = {
        "x": [position for position, _ in ringed],
        "y": [_rounded(point.score.value) for _, point in ringed],
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 15, "color": style.RING, "line": {"width": 1.8}},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": curve.rule_label,
        "cliponaxis": False,
    }
    traced = [("bands", band), ("", line), ("seeds", _seeds(curve, axis, seed_lines))]
    traced += [("rings", ring)] if ringed else []
    return [trace for name, trace in traced if name not in hide]


def _seeds(curve: Curve, axis: Axis, lines: bool) -> Trace:
    """A short dash for each seed, or thin lines through them; for more than MANY seeds their range. One path in all."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    if lines:
        for seed in dict.fromkeys(seed for point in curve.points for seed in point.by_seed):
            points = [point for point in curve.points if seed in point.by_seed]
            xs += [*(axis.position(point.epsilon) for point in points), None]
            ys += [*(_rounded(point.by_seed[seed]) for point in points), None]
    else:
        for point in curve.points:
            values = point.by_seed.values()
            if len(values) > MANY:
                xs += [axis.position(point.epsilon)] * 2 + [None]
                ys += [_rounded(min(values)), _rounded(max(values)), None]
                continue
            left, right = axis.around(point.epsilon)
            for value in map(_rounded, values):
                xs += [left, right, None]
                ys += [value, value, None]
    return {
        "x": xs,
        "y": ys,
        "mode": "lines",
        "line": {"width": 0.8 if lines else 1.6, "color": style.style(curve.rule)[0]},
        "opacity": 0.6,
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": curve.rule_label,
    }


def traces(
    curve: Curve, x: Sequence[float], scores: Sequence[Interval], texts: Sequence[str], unit: float = 1.0
) -> list[Trace]:
    """The band of a line, and the line with its markers, in `unit`s of 1."""
    colour, dash, marker = style.style(curve.rule)
    red, green, blue = (int(colour[start : start + 2], 16) for start in (1, 3, 5))
    band = {
        "x": [*x, *reversed(x)],
        "y": [_rounded(unit * value) for value in (*(s.hi for s in scores), *(s.lo for s in reversed(scores)))],
        "fill": "toself",
        "fillcolor": f"rgba({red},{green},{blue},0.12)",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "mode": "lines",
        "legendgroup": curve.rule_label,
    }
    line = {
        "x": list(x),
        "y": [_rounded(unit * s.value) for s in scores],
        "mode": "lines+markers",
        "name": style.escape(style.label(curve.rule_label)),
        "line": {"dash": dash, "width": 2},
        "marker": {"symbol": marker, "size": 8, "color": colour},
        "hovertext": list(texts),
        "hovertemplate": style.hover_frame(curve),
        "showlegend": True,
        "legendgroup": curve.rule_label,
        "cliponaxis": False,
    }
    return [band, line]


def _rounded(value: float) -> float:
    """A hundredth of a point: a thirtieth of a pixel, and a third of the page's size."""
    return round(value, 4)

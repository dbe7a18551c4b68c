"""Plotly figures of curves: score against epsilon, a panel for each attack, with bands and seeds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.explorer import style
from orchestrator.explorer.axes import Axes, Axis
from orchestrator.explorer.curve import Curve, Point
from signsym_core.stats import Interval

#: Flags of a point, by its line and epsilon.
Rings = Mapping[tuple[int, float], Sequence[str]]
#: Title and lines of a panel.
PanelCurves = tuple[str, Sequence[Curve]]
#: A scatter trace as plotly writes it.
Trace = dict[str, Any]
#: The radius that robustness is most often quoted at.
USUAL = 8 / 255


def curve_figure(
    panels: Sequence[PanelCurves],
    columns: int,
    x: str = "ordinal",
    seed_lines: bool = False,
    rings: Rings | None = None,
) -> go.Figure:
    """Score over epsilon with its band, panels row by row. `x` is "ordinal", "linear" or "log"."""
    figure = grid_of(panels, columns)
    axes = Axes([curve for _, curves in panels for curve in curves], x)
    named: set[str] = set()
    shapes: list[dict[str, Any]] = []
    found: list[tuple[int, Trace]] = []
    for at, (_, curves) in enumerate(panels):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        axis = axes.of(curves)
        for curve in curves:
            new = _line(curve, axis, seed_lines, rings or {}, curve.rule_label not in named)
            found += [(at, trace) for trace in new]
            named.add(curve.rule_label)
        if curves:
            shapes += _references(axis, curves, at)
        axis.dress(figure, place, titled=axes.several or at + columns >= len(panels))
    scores = list(dict.fromkeys(curve.score_name for _, curves in panels for curve in curves))
    for row in range(1, -(-len(panels) // columns) + 1):
        figure.update_yaxes(title_text=" / ".join(scores), row=row, col=1)
    figure.update_layout(shapes=shapes)
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return with_traces(dressed(figure, -(-len(panels) // columns)), found)


def with_traces(figure: go.Figure, found: Sequence[tuple[int, Trace]]) -> go.Figure:
    """A figure of `grid_of` with the traces of its panels, each with its panel's number, from 0.

    Plotly checks every value of a trace that is added the usual way, which took most of the time of a page.
    """
    data = []
    for panel, trace in found:
        number = "" if panel == 0 else str(panel + 1)
        data.append({"type": "scatter", "xaxis": f"x{number}", "yaxis": f"y{number}", **trace})
    return go.Figure(data=data, layout=figure.layout, _validate=False)


def grid_of(panels: Sequence[PanelCurves], columns: int) -> go.Figure:
    """Empty panels with their titles."""
    rows = max(1, -(-len(panels) // columns))
    return make_subplots(
        rows=rows,
        cols=columns,
        shared_yaxes=True,
        horizontal_spacing=min(0.03, 0.1 / columns),
        vertical_spacing=0.34 / rows,
        subplot_titles=[panel_title(title, curves) for title, curves in panels],
    )


def panel_title(title: str, curves: Sequence[Curve]) -> str:
    """The panel's name and what it rests on, in a warning tone where that is little."""
    if not curves:
        return f"{style.escape(title)}<br>not run"
    n, seeds = min(c.n for c in curves), min(c.seeds for c in curves)
    rests = f"n = {n:,}, {style.counted(seeds, 'seed')}"
    if any(curve.small for curve in curves):
        rests = f"<span style='color:{style.WARNING}'>few: {rests}</span>"
    place, slash, attack = style.escape(title).rpartition(" / ")
    return f"{place}{slash}<b>{attack}</b><br>{rests}"


def _references(axis: Axis, curves: Sequence[Curve], panel: int) -> list[dict[str, Any]]:
    lines = [reference(panel, "y", curves[0].chance)]
    if axis.within(USUAL):
        # On a logarithmic axis plotly wants the exponent for shapes.
        x = np.log10(USUAL) if axis.scale == "log" else axis.at(USUAL)
        lines.append(reference(panel, "x", float(x)))
    return lines


def reference(panel: int, axis: str, at: float, **line: Any) -> dict[str, Any]:
    """A line across the panel of that number at a value of "x" or "y".

    Collected and set at once: plotly's own `add_hline` looks at every shape and trace again for each one.
    """
    number = "" if panel == 0 else str(panel + 1)
    across = "x" if axis == "y" else "y"
    place = {f"{axis}0": at, f"{axis}1": at, f"{axis}ref": f"{axis}{number}"}
    place |= {f"{across}0": 0, f"{across}1": 1, f"{across}ref": f"{across}{number} domain"}
    return {"type": "line", "line": {"color": style.REFERENCE, "width": 1, "dash": "dot"} | line, **place}


def _line(curve: Curve, axis: Axis, seed_lines: bool, rings: Rings, named: bool) -> list[Trace]:
    flags = [rings.get((curve.line, point.epsilon), ()) for point in curve.points]
    x = [axis.at(point.epsilon) for point in curve.points]
    texts = [style.hover(curve, point, raised) for point, raised in zip(curve.points, flags, strict=True)]
    made = traces(curve, x, [point.score for point in curve.points], texts, named)
    made[1]["customdata"] = [point.cell for point in curve.points]
    ringed = [(at, point) for at, point, raised in zip(x, curve.points, flags, strict=True) if raised]
    ring = {
        "x": [at for at, _ in ringed],
        "y": [_rounded(point.score.value) for _, point in ringed],
        "mode": "markers",
        "marker": {"symbol": "circle-open", "size": 15, "color": style.RING, "line": {"width": 1.8}},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": curve.rule_label,
    }
    return [*made, _seeds(curve, x, seed_lines), *([ring] if ringed else [])]


def _seeds(curve: Curve, x: Sequence[float], lines: bool) -> Trace:
    """A dot for each seed, or thin lines through them, broken between seeds."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for seed in dict.fromkeys(seed for point in curve.points for seed in point.by_seed):
        for at, point in zip(x, curve.points, strict=True):
            if seed in point.by_seed:
                xs.append(at)
                ys.append(_rounded(point.by_seed[seed]))
        xs.append(None)
        ys.append(None)
    return {
        "x": xs,
        "y": ys,
        "mode": "lines" if lines else "markers",
        "marker": {"size": 4, "color": style.style(curve.rule)[0]},
        "line": {"width": 0.8, "color": style.style(curve.rule)[0]},
        "opacity": 0.55,
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": curve.rule_label,
    }


def traces(
    curve: Curve, x: Sequence[float], scores: Sequence[Interval], texts: Sequence[str], named: bool
) -> list[Trace]:
    """The band of a line, and the line with its markers."""
    colour, dash, marker = style.style(curve.rule)
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    band = {
        "x": [*x, *reversed(x)],
        "y": [_rounded(value) for value in (*(s.hi for s in scores), *(s.lo for s in reversed(scores)))],
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
        "y": [_rounded(s.value) for s in scores],
        "mode": "lines+markers",
        "name": style.escape(style.label(curve.rule_label)),
        "line": {"color": colour, "dash": dash, "width": 2},
        "marker": {"symbol": marker, "size": 8, "color": colour},
        "hovertext": list(texts),
        "hoverinfo": "text",
        "showlegend": named,
        "legendgroup": curve.rule_label,
    }
    return [band, line]


def _rounded(value: float) -> float:
    """A thousandth of a point: less than a pixel, and a third of the page's size."""
    return round(value, 5)


def dressed(figure: go.Figure, rows: int) -> go.Figure:
    """The looks that all figures share. Backgrounds are clear, so that one figure stands on a light or dark page."""
    figure.update_layout(
        template="plotly_white",
        height=110 + 280 * rows,
        font={"family": style.FONT, "size": 12},
        margin={"l": 56, "r": 12, "t": 96, "b": 56},
        legend={"orientation": "h", "y": 1, "yanchor": "top", "yref": "container", "x": 0, "font_size": 14},
        hoverlabel={"align": "left"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    figure.update_annotations(font_size=12)
    return figure


def point_near(curves: Sequence[Curve], epsilon: float) -> list[tuple[Curve, Point]]:
    """The points at an epsilon of those curves that have one there."""
    return [(curve, point) for curve in curves if (point := curve.at(epsilon)) is not None]

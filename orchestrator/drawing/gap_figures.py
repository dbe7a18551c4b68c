"""Plotly figures of differences: over epsilon, and as a heat map at one epsilon."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.axes import Axes
from orchestrator.drawing.figures import traces
from orchestrator.drawing.heat_map import Field, heat_trace
from orchestrator.drawing.panels import PanelCurves, Panels, Spec, in_lines, looks, panel_title
from orchestrator.results.gaps import GapLine, GapPoint

#: A panel's title and its lines.
PanelGaps = tuple[str, Sequence[GapLine]]
#: Purple to orange: ColorBrewer's PuOr, which colour-blind people tell apart, white where there is no gap.
_COLOURS = [
    *([0, "#542788"], [0.25, "#998ec3"], [0.45, "#d8daeb"], [0.5, "#f7f7f7"]),
    *([0.55, "#fee0b6"], [0.75, "#f1a340"], [1, "#b35806"]),
]
#: Letters of a line of a row's name that fit beside a heat map.
ROW_LETTERS = 34
OVER = {"bp": "rule minus BP, points", "exact": "feedback minus exact, points"}


def gap_figure(
    panels: Sequence[PanelGaps], columns: int, minus: str, x: str = "ordinal", hide: Collection[str] = ()
) -> Spec:
    """Differences over epsilon. A filled marker: the interval corrected by Holm excludes zero; hollow: it does not.

    Without bands where `hide` names them.
    """
    curves: list[PanelCurves] = [(title, [line.curve for line in lines]) for title, lines in panels]
    # The seeds and images of a difference are those that both sides have.
    titles = [panel_title(title, [p.gap for line in lines for p in line.points]) for title, lines in panels]
    figure = Panels(curves, columns, titles)
    axes = Axes([curve for _, members in curves for curve in members], x)
    gaps = [point.gap for _, lines in panels for line in lines for point in line.points]
    low, high = (100 * pick(end) for pick, end in ((min, [g.lo for g in gaps]), (max, [g.hi for g in gaps])))
    # Explicit, for the reason given in `Axis.dressed`.
    reach = [min(0.0, low) - 4, max(0.0, high) + 4]
    upright = {"range": reach, "tickformat": "+d", "title": {"text": OVER[minus], "standoff": 6}}
    for panel, (_, lines) in enumerate(panels):
        axis = axes.of([line.curve for line in lines])
        across = axis.dressed(titled=axes.several or panel + columns >= len(panels), columns=columns)
        figure.dress(panel, across, upright)
        for line in lines:
            curve = line.curve
            xs = [axis.position(point.point.epsilon) for point in line.points]
            texts = [hover(line, point, minus) for point in line.points]
            band, marked = traces(curve, xs, [point.gap for point in line.points], texts, unit=100)
            symbol = style.style(curve.rule)[2]
            marked["marker"]["symbol"] = [symbol if point.clear else f"{symbol}-open" for point in line.points]
            marked["customdata"] = [point.point.cell for point in line.points]
            figure.add(panel, *([] if "bands" in hide else [band]), marked)
        if lines:
            figure.reference(panel, "y", 0, width=1.5, dash="solid")
    return figure.figure()


def heat_figure(lines: Sequence[GapLine], epsilon: float, minus: str) -> Spec:
    """Differences at one epsilon: models down, attacks across. Bold: excludes zero after Holm's correction."""
    shown = [(line, point) for line in lines if (point := line.point(epsilon)) is not None]
    heat, rows, columns = heat_trace(
        {(_model(line), _attack(line)): (line, point) for line, point in shown},
        lambda one: Field(100 * one[1].gap.value, _in_cell(one[1]), _named(*one, minus), one[1].point.cell),
        _COLOURS,
        "points",
    )
    heat |= {"zmid": 0, "zmin": -100, "zmax": 100}
    heat["colorbar"]["tickvals"] = [-100, -50, 0, 50, 100]
    # Slanted names, at 30 degrees, need half of their length.
    below = max(100, 30 + 7 * max(map(len, columns)) // 2) if len(columns) > 5 else 40
    # The names of rows in lines, of which each takes 14 pixels.
    names = [list(map(style.escape, in_lines(row, ROW_LETTERS))) for row in rows]
    high = max(42, 12 + 14 * max(map(len, names)))
    layout = looks(150 + high * len(rows) + max(0, below - 100), 320 + 96 * len(columns))
    layout |= {"margin": {"l": 230, "r": 12, "t": 30, "b": below}}
    layout["xaxis"] = {"showgrid": False, "zeroline": False, "tickangle": -30 if len(columns) > 5 else 0}
    layout["yaxis"] = {"showgrid": False, "zeroline": False, "autorange": "reversed"}
    layout["yaxis"] |= {"tickvals": heat["y"], "ticktext": ["<br>".join(lines) for lines in names]}
    return {"data": [heat], "layout": layout}


def hover(line: GapLine, point: GapPoint, minus: str) -> str:
    """The text over a difference, without the name of its rule."""
    less = "BP" if minus == "bp" else "the exact gradient on the same weights"
    holds = "excludes" if point.clear else "does not exclude"
    text = f"{style.escape(point.point.label)}: {style.points(point.gap)} points over {less}"
    text += f"<br>of {style.rests_on(point.gap)}, paired, {style.method(point.gap)}"
    return f"{text}<br>corrected over {style.counted(line.family, 'comparison')}, it {holds} zero"


def _named(line: GapLine, point: GapPoint, minus: str) -> str:
    return f"<b>{style.escape(style.label(line.curve.rule_label))}</b>, ε {hover(line, point, minus)}"


def _in_cell(point: GapPoint) -> str:
    text = f"{100 * point.gap.value:+.1f}"
    return f"<b>{text}</b> ●" if point.clear else f"{text} ○"


def _model(line: GapLine) -> str:
    return f"{line.curve.title} / {style.label(line.curve.rule_label)}"


def _attack(line: GapLine) -> str:
    return f"{line.curve.attack_label}, {line.curve.gradient}"

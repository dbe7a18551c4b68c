"""Plotly figures of differences: over epsilon, and as a heat map at one epsilon."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go

from orchestrator.explorer import style
from orchestrator.explorer.axes import Axes
from orchestrator.explorer.figures import PanelCurves, Trace, dressed, grid_of, reference, traces, with_traces
from orchestrator.explorer.gaps import GapLine, GapPoint

#: A panel's title and its lines.
PanelGaps = tuple[str, Sequence[GapLine]]
OVER = {"bp": "rule minus BP, points", "exact": "feedback minus exact, points"}


def gap_figure(panels: Sequence[PanelGaps], columns: int, minus: str, x: str = "ordinal") -> go.Figure:
    """Differences over epsilon. A filled marker: the interval corrected by Holm excludes zero; hollow: it does not."""
    curves: list[PanelCurves] = [(title, [line.curve for line in lines]) for title, lines in panels]
    figure = grid_of(curves, columns)
    axes = Axes([curve for _, members in curves for curve in members], x)
    named: set[str] = set()
    zeros = []
    drawn: list[tuple[int, Trace]] = []
    for at, (_, lines) in enumerate(panels):
        place = {"row": at // columns + 1, "col": at % columns + 1}
        axis = axes.of([line.curve for line in lines])
        for line in lines:
            curve = line.curve
            xs = [axis.at(point.point.epsilon) for point in line.points]
            texts = [hover(line, point, minus) for point in line.points]
            made = traces(curve, xs, [point.gap for point in line.points], texts, curve.rule_label not in named)
            named.add(curve.rule_label)
            symbol = style.style(curve.rule)[2]
            made[1]["marker"]["symbol"] = [symbol if point.clear else f"{symbol}-open" for point in line.points]
            made[1]["customdata"] = [point.point.cell for point in line.points]
            drawn += [(at, trace) for trace in made]
        if lines:
            zeros.append(reference(at, "y", 0, width=1.5, dash="solid"))
        axis.dress(figure, place, titled=axes.several or at + columns >= len(panels))
    for row in range(1, -(-len(panels) // columns) + 1):
        figure.update_yaxes(title_text=OVER[minus], row=row, col=1)
    figure.update_layout(shapes=zeros)
    found = [point.gap for _, lines in panels for line in lines for point in line.points]
    low, high = min(gap.lo for gap in found), max(gap.hi for gap in found)
    # Said outright, for the reason that `Axis.dress` gives.
    reach = [min(0.0, low) - 0.04, max(0.0, high) + 0.04]
    figure.update_yaxes(tickformat="+.0%", zeroline=False, range=reach)
    return with_traces(dressed(figure, -(-len(panels) // columns)), drawn)


def heat_figure(lines: Sequence[GapLine], epsilon: float, minus: str) -> go.Figure:
    """Differences at one epsilon: models down, attacks across. In bold what holds after Holm's correction."""
    shown = [(line, point) for line in lines if (point := line.at(epsilon)) is not None]
    rows = list(dict.fromkeys(_model(line) for line, _ in shown))
    columns = list(dict.fromkeys(_attack(line) for line, _ in shown))
    found = {(_model(line), _attack(line)): (line, point) for line, point in shown}
    cells = [[found.get((row, column)) for column in columns] for row in rows]
    heat = go.Heatmap(
        x=[style.escape(column) for column in columns],
        y=[style.escape(row) for row in rows],
        z=[[None if cell is None else round(100 * cell[1].gap.value, 2) for cell in row] for row in cells],
        text=[["not run" if cell is None else _in_cell(cell[1]) for cell in row] for row in cells],
        customdata=[[None if cell is None else cell[1].point.cell for cell in row] for row in cells],
        hovertext=[["not run" if cell is None else hover(*cell, minus) for cell in row] for row in cells],
        hoverinfo="text",
        texttemplate="%{text}",
        colorscale="PuOr_r",
        zmid=0,
        zmin=-100,
        zmax=100,
        colorbar={"title": {"text": "points"}, "thickness": 12},
        xgap=2,
        ygap=2,
    )
    figure = dressed(go.Figure(heat), 1)
    figure.update_layout(height=150 + 42 * len(rows), margin={"l": 200, "t": 30, "b": 70})
    figure.update_yaxes(autorange="reversed")
    return figure


def hover(line: GapLine, point: GapPoint, minus: str) -> str:
    """The text over a difference."""
    curve = line.curve
    less = "BP" if minus == "bp" else "the exact gradient on the same weights"
    holds = "excludes" if point.clear else "does not exclude"
    text = f"<b>{style.escape(style.label(curve.rule_label))}</b> minus {less}, ε {style.escape(point.point.label)} "
    text += f"({style.norm(curve.norm)}, [0, 1] pixels): {style.points(point.gap)} points"
    text += f"<br>of {style.rests_on(point.gap)}, paired, {point.gap.method}"
    return f"{text}<br>corrected over {style.counted(line.family, 'comparison')}, it {holds} zero"


def _in_cell(point: GapPoint) -> str:
    text = f"{100 * point.gap.value:+.1f}"
    return f"<b>{text}</b> ●" if point.clear else f"{text} ○"


def _model(line: GapLine) -> str:
    return f"{line.curve.title} / {style.label(line.curve.rule_label)}"


def _attack(line: GapLine) -> str:
    return f"{line.curve.attack_label}, {line.curve.gradient}"

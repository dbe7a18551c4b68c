"""Plotly figures of curves: score against epsilon, and the feedback gradient beside the exact one."""

from __future__ import annotations

from collections.abc import Sequence

import plotly.graph_objects as go
from plotly.subplots import make_subplots

from orchestrator.explorer.query import Curve, Point
from signsym_core.rules import RULES
from signsym_core.stats import Interval

#: Used by every graph: nothing leaves the page, and pictures are saved as SVG.
GRAPH_CONFIG = {
    "displaylogo": False,
    "showSendToCloud": False,
    "responsive": True,
    "toImageButtonOptions": {"format": "svg"},
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}

# Okabe and Ito's colours, which colour-blind people tell apart; dash and marker say the same again.
_STYLES = {
    "bp": ("#000000", "solid", "circle"),
    "fa": ("#999999", "dot", "x"),
    "usf": ("#0072B2", "dash", "square"),
    "frsf": ("#D55E00", "dashdot", "diamond"),
    "brsf": ("#009E73", "longdash", "triangle-up"),
}
_OTHERS = (("#CC79A7", "dash", "star"), ("#E69F00", "dot", "hexagon"), ("#56B4E9", "solid", "cross"))
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"
_GRADIENTS = {"feedback": "its own feedback", "exact": "the exact gradient", "none": "no gradient"}


def style(rule: str) -> tuple[str, str, str]:
    """Colour, dash and marker of a rule, the same in every figure."""
    return _STYLES.get(rule) or _OTHERS[sum(rule.encode()) % len(_OTHERS)]


def label(name: str) -> str:
    """A rule as figures print it: "frSF" for "frsf", parameters kept."""
    base, bracket, rest = name.partition("(")
    return (RULES[base].label if base in RULES else base) + bracket + rest


def percent(score: Interval) -> str:
    """An interval in words: "61.2 % [59.8, 62.5]"."""
    return f"{100 * score.value:.1f} % [{100 * score.lo:.1f}, {100 * score.hi:.1f}]"


def points(difference: Interval) -> str:
    """A gap in percentage points: "+22.4 [+20.9, +23.9]"."""
    return f"{100 * difference.value:+.1f} [{100 * difference.lo:+.1f}, {100 * difference.hi:+.1f}]"


def epsilon(point: Point) -> str:
    """An epsilon as axes print it; 0 is the clean image."""
    return "clean" if point.epsilon == 0 else point.label


def hover(curve: Curve, point: Point) -> str:
    """The text over a marker: the score, what it rests on, and its gap to BP."""
    n, seeds = point.score.n, point.score.seeds
    text = f"<b>{label(curve.rule_label)}</b>, ε {point.label} (L∞, [0, 1] pixels): {percent(point.score)}"
    text += f"<br>n = {n * seeds:,} ({seeds} seed{'s' * (seeds > 1)} × {n:,} images)"
    if point.over_bp is not None:
        text += f"<br>gap to BP {points(point.over_bp)} points"
    return text + f"<br>interval: {point.score.method}"


def curve_figure(curves: Sequence[Curve]) -> go.Figure:
    """The lines of one figure: a row for each attack, a column for each source of gradient."""
    attacks = list(dict.fromkeys(curve.attack_label for curve in curves))
    gradients = sorted({curve.gradient for curve in curves}, key=lambda g: list(_GRADIENTS).index(g))
    figure = make_subplots(
        rows=len(attacks),
        cols=len(gradients),
        shared_yaxes=True,
        horizontal_spacing=0.03,
        vertical_spacing=0.24 / len(attacks),
        subplot_titles=[_panel_title(curves, a, g) for a in attacks for g in gradients],
    )
    named: set[str] = set()
    for row, attack in enumerate(attacks, start=1):
        positions = _positions([curve for curve in curves if curve.attack_label == attack])
        for column, gradient in enumerate(gradients, start=1):
            lines = [c for c in curves if (c.attack_label, c.gradient) == (attack, gradient)]
            for curve in lines:
                x = [positions[point.epsilon] for point in curve.points]
                for trace in _line(curve, x, [hover(curve, p) for p in curve.points], curve.rule_label not in named):
                    figure.add_trace(trace, row=row, col=column)
                named.add(curve.rule_label)
            if lines:
                figure.add_hline(
                    y=lines[0].chance, row=row, col=column, line={"color": "#888", "width": 1, "dash": "dot"}
                )
            ticks = {at: "clean" if value == 0 else _label_of(lines, value) for value, at in positions.items()}
            figure.update_xaxes(tickvals=list(ticks), ticktext=list(ticks.values()), row=row, col=column)
        figure.update_yaxes(title_text="robust accuracy", row=row, col=1)
    for column in range(1, len(gradients) + 1):
        figure.update_xaxes(title_text="ε (L∞, [0, 1] pixels)", row=len(attacks), col=column)
    figure.update_yaxes(range=[-0.02, 1.02], tickformat=".0%")
    return _dressed(figure, 130 + 290 * len(attacks))


def masking_figure(curves: Sequence[Curve], at: float) -> go.Figure:
    """Left: at the epsilon `at`, each rule under its own feedback and under the exact gradient. Right: the difference
    of the two over epsilon, paired by image. `curves` are those of one attack."""
    figure = make_subplots(
        cols=2,
        column_widths=[0.5, 0.5],
        horizontal_spacing=0.1,
        subplot_titles=["Robust accuracy, gradient by gradient", "Feedback minus exact, paired by image"],
    )
    pairs = [(f, e) for f in curves for e in curves if f.rule_label == e.rule_label and _is_pair(f, e)]
    for feedback, exact in reversed(pairs):
        name, colour = label(feedback.rule_label), style(feedback.rule)[0]
        shown = [(c, p) for c in (exact, feedback) for p in c.points if p.epsilon == at]
        figure.add_trace(
            go.Scatter(
                x=[point.score.value for _, point in shown],
                y=[name] * len(shown),
                mode="lines+markers",
                line={"color": colour, "width": 3},
                marker={
                    "size": 14,
                    "color": [colour if c is exact else "white" for c, _ in shown],
                    "line": {"color": colour, "width": 3},
                },
                error_x={
                    "type": "data",
                    "symmetric": False,
                    "array": [p.score.hi - p.score.value for _, p in shown],
                    "arrayminus": [p.score.value - p.score.lo for _, p in shown],
                    "color": colour,
                    "thickness": 1,
                },
                hovertext=[f"{_GRADIENTS[c.gradient]}<br>{hover(c, p)}" for c, p in shown],
                hoverinfo="text",
                showlegend=False,
            ),
            row=1,
            col=1,
        )
    positions = _positions([feedback for feedback, _ in pairs])
    for feedback, _ in pairs:
        kept = [point for point in feedback.points if point.over_exact is not None]
        texts = [f"<b>{label(feedback.rule_label)}</b>, ε {p.label}: {_over_exact(p)} points" for p in kept]
        gaps = [point.over_exact for point in kept if point.over_exact is not None]
        x = [positions[point.epsilon] for point in kept]
        for trace in _traces(feedback, x, gaps, texts, True):
            figure.add_trace(trace, row=1, col=2)
    labels = {p.epsilon: epsilon(p) for f, _ in pairs for p in f.points}
    figure.update_xaxes(range=[-0.03, 1.03], tickformat=".0%", title_text="● exact   ○ its own feedback", row=1, col=1)
    figure.update_xaxes(
        tickvals=list(positions.values()),
        ticktext=[labels[value] for value in positions],
        title_text="ε (L∞, [0, 1] pixels)",
        row=1,
        col=2,
    )
    figure.update_yaxes(tickformat="+.0%", zeroline=True, zerolinecolor="#888", row=1, col=2)
    return _dressed(figure, 420)


def _line(curve: Curve, x: list[int], texts: list[str], named: bool) -> list[go.Scatter]:
    dots = [(at, value) for at, point in zip(x, curve.points, strict=True) for value in point.by_seed.values()]
    seeds = go.Scatter(
        x=[at for at, _ in dots],
        y=[value for _, value in dots],
        mode="markers",
        marker={"size": 4, "color": style(curve.rule)[0], "opacity": 0.45},
        hoverinfo="skip",
        showlegend=False,
        legendgroup=curve.rule_label,
    )
    return [*_traces(curve, x, [point.score for point in curve.points], texts, named), seeds]


def _traces(curve: Curve, x: list[int], scores: list[Interval], texts: list[str], named: bool) -> list[go.Scatter]:
    colour, dash, marker = style(curve.rule)
    red, green, blue = (int(colour[at : at + 2], 16) for at in (1, 3, 5))
    group = {"legendgroup": curve.rule_label}
    band = go.Scatter(
        x=[*x, *reversed(x)],
        y=[*(s.hi for s in scores), *(s.lo for s in reversed(scores))],
        fill="toself",
        fillcolor=f"rgba({red},{green},{blue},0.10)",
        line={"width": 0},
        hoverinfo="skip",
        showlegend=False,
        mode="lines",
        **group,
    )
    line = go.Scatter(
        x=x,
        y=[s.value for s in scores],
        mode="lines+markers",
        name=label(curve.rule_label),
        line={"color": colour, "dash": dash, "width": 2},
        marker={"symbol": marker, "size": 8, "color": colour},
        hovertext=texts,
        hoverinfo="text",
        showlegend=named,
        **group,
    )
    return [band, line]


def _panel_title(curves: Sequence[Curve], attack: str, gradient: str) -> str:
    lines = [curve for curve in curves if (curve.attack_label, curve.gradient) == (attack, gradient)]
    if not lines:
        return f"{attack}, {_GRADIENTS[gradient]}: not run"
    n, seeds = min(c.n for c in lines), min(c.seeds for c in lines)
    text = f"<b>{attack}</b> following <b>{_GRADIENTS[gradient]}</b>"
    rests = f"n = {n:,}, {seeds} seed{'s' * (seeds > 1)}"
    return f"{text} · " + (f"<span style='color:#B35900'>{rests}</span>" if lines[0].small else rests)


def _positions(curves: Sequence[Curve]) -> dict[float, int]:
    """Places on an ordinal axis: the epsilons of all lines in order, one step apart."""
    return {value: at for at, value in enumerate(sorted({p.epsilon for c in curves for p in c.points}))}


def _label_of(curves: Sequence[Curve], value: float) -> str:
    return next((p.label for c in curves for p in c.points if p.epsilon == value), "")


def _is_pair(feedback: Curve, exact: Curve) -> bool:
    return feedback.gradient == "feedback" and exact.gradient == "exact"


def _over_exact(point: Point) -> str:
    return "" if point.over_exact is None else points(point.over_exact)


def _dressed(figure: go.Figure, height: int) -> go.Figure:
    figure.update_layout(
        template="plotly_white",
        height=height,
        font={"family": _FONT, "size": 13},
        margin={"l": 60, "r": 20, "t": 90, "b": 60},
        legend={"orientation": "h", "y": 0.995, "yanchor": "top", "yref": "container", "x": 0},
        hoverlabel={"align": "left"},
    )
    figure.update_annotations(font_size=13)
    return figure

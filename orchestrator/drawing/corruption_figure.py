"""The figure of corruptions: score over severity, a panel for each kind and one for their mean, a line for a rule."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.drawing import style
from orchestrator.drawing.figure_data import Dot, Drawing, Stroke
from orchestrator.drawing.figures import traces
from orchestrator.drawing.panels import Panels, Spec
from orchestrator.results.curve import Curve, Point
from signsym_core.statistics.intervals import Interval

#: Panels of a row at most.
WIDEST = 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class SeverityLine:
    """The scores of a rule by severity; 0 are clean images. `cells` are those that points link to, where there are."""

    curve: Curve
    scores: Mapping[int, Interval]
    cells: Mapping[int, str]


def corruption_figure(panels: Sequence[tuple[str, Sequence[SeverityLine]]]) -> Spec:
    """Panels row by row, each with its title."""
    titles = [f"<b>{style.escape(title)}</b>" for title, _ in panels]
    curves = [("", [line.curve for line in lines]) for _, lines in panels]
    figure = Panels(curves, min(len(panels), WIDEST), titles)
    severities = sorted({severity for _, lines in panels for line in lines for severity in line.scores})
    across = {"range": [severities[0] - 0.3, severities[-1] + 0.3], "tickvals": severities}
    across |= {"ticktext": ["clean" if severity == 0 else str(severity) for severity in severities]}
    across |= {"title": {"text": "severity", "standoff": 4}}
    for number, (_, lines) in enumerate(panels):
        figure.dress(number, across, figure.scores)
        for line in lines:
            texts = [f"{style.percent(score)}, {style.basis(score)}" for score in line.scores.values()]
            band, drawn = traces(line.curve, list(line.scores), list(line.scores.values()), texts)
            rule = style.escape(style.label(line.curve.rule_label))
            frame = f"<b>{rule}</b>, severity %{{x}}<br>%{{hovertext}}<extra></extra>"
            drawn |= {"hovertemplate": frame}
            drawn |= {"customdata": [line.cells[severity] for severity in line.scores]} if line.cells else {}
            figure.add(number, band, drawn)
        if lines:
            figure.reference(number, "y", lines[0].curve.chance, "chance")
    return figure.figure()


def mean_drawing(title: str, lines: Sequence[SeverityLine]) -> Drawing | None:
    """The figure for a paper: the mean over kinds by severity, a line for a rule; None where no line has a score."""
    strokes = tuple(_stroke(line) for line in lines if line.scores)
    if not strokes:
        return None
    names = style.scores(stroke.curve.score_name for stroke in strokes)
    return Drawing(panels=((title, strokes),), columns=1, quantity=f"{names}, %", difference=False, across="severity")


def _stroke(line: SeverityLine) -> Stroke:
    """The line with its severities in the place of epsilons, which axes are made of."""
    dots = [Dot(epsilon=level, label=str(level), score=score, by_seed={}) for level, score in line.scores.items()]
    unknown: dict[str, Any] = {"by_seed": {}, "over_bp": None, "over_exact": None, "reach": math.nan, "cell": ""}
    points = [Point(epsilon=dot.epsilon, label=dot.label, score=dot.score, **unknown) for dot in dots]
    return Stroke(curve=dataclasses.replace(line.curve, points=tuple(points)), dots=tuple(dots))

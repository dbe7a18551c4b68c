"""What a figure shows, as numbers: the figure on the page and the one for a paper are drawn from the same objects."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Sequence

from orchestrator.explorer import style
from orchestrator.explorer.curve import Curve
from orchestrator.explorer.gaps import GapLine
from signsym_core.stats import Interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stroke:
    """One line of a panel."""

    rule: str
    label: str
    epsilons: tuple[float, ...]
    labels: tuple[str, ...]
    scores: tuple[Interval, ...]
    #: Whether the marker of each point is filled.
    filled: tuple[bool, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """Panels with their lines."""

    panels: tuple[tuple[str, tuple[Stroke, ...]], ...]
    columns: int
    #: The quantity on the vertical axis, and whether it is a difference.
    quantity: str
    difference: bool
    #: Sign of epsilon's norm.
    norm: str

    def as_csv(self) -> str:
        """Every number that is drawn."""
        sink = io.StringIO()
        writer = csv.writer(sink, lineterminator="\n")
        writer.writerow(["panel", "rule", "epsilon", "value", "lo", "hi", "method", "images", "seeds", "filled"])
        for title, strokes in self.panels:
            for stroke in strokes:
                for label, score, filled in zip(stroke.labels, stroke.scores, stroke.filled, strict=True):
                    numbers = (score.value, score.lo, score.hi, score.method, score.n, score.seeds, filled)
                    writer.writerow([title, stroke.label, label, *numbers])
        return sink.getvalue()


def of_curves(panels: Sequence[tuple[str, Sequence[Curve]]], columns: int) -> Drawing:
    """The drawing of scores."""
    strokes = [
        (
            title,
            tuple(_stroke(curve, [(p.epsilon, p.label, p.score, True) for p in curve.points]) for curve in curves),
        )
        for title, curves in panels
    ]
    curves = [curve for _, members in panels for curve in members]
    names = " / ".join(dict.fromkeys(curve.score_name for curve in curves))
    return Drawing(panels=tuple(strokes), columns=columns, quantity=names, difference=False, norm=_norm(curves))


def of_gaps(panels: Sequence[tuple[str, Sequence[GapLine]]], columns: int, quantity: str) -> Drawing:
    """The drawing of differences."""
    strokes = [
        (
            title,
            tuple(
                _stroke(line.curve, [(p.point.epsilon, p.point.label, p.gap, p.clear) for p in line.points])
                for line in lines
            ),
        )
        for title, lines in panels
    ]
    norm = _norm([line.curve for _, lines in panels for line in lines])
    return Drawing(panels=tuple(strokes), columns=columns, quantity=quantity, difference=True, norm=norm)


def _stroke(curve: Curve, points: Sequence[tuple[float, str, Interval, bool]]) -> Stroke:
    epsilons, labels, scores, filled = zip(*points, strict=True)
    return Stroke(
        rule=curve.rule,
        label=style.label(curve.rule_label),
        epsilons=epsilons,
        labels=tuple("clean" if epsilon == 0 else label for epsilon, label in zip(epsilons, labels, strict=True)),
        scores=scores,
        filled=filled,
    )


def _norm(curves: Sequence[Curve]) -> str:
    return " / ".join(dict.fromkeys(style.norm(curve.norm) for curve in curves))

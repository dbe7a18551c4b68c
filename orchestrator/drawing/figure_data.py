"""The numbers of a figure: the figure on the page and the one for a paper are drawn from the same objects."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Iterable, Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.results.curve import Curve
from orchestrator.results.gaps import GapLine
from signsym_core.statistics.intervals import Interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class Dot:
    """One point of a line."""

    epsilon: float
    #: The epsilon as the grid wrote it.
    label: str
    score: Interval
    #: The score of each seed; none in a figure of differences.
    by_seed: Mapping[int, float]
    #: Whether the marker is filled, and the flags that its ring stands for.
    filled: bool = True
    flags: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stroke:
    """One line of a panel."""

    curve: Curve
    dots: tuple[Dot, ...]

    @property
    def label(self) -> str:
        """The rule as figures print it."""
        return style.label(self.curve.rule_label)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Drawing:
    """Panels with their lines."""

    panels: tuple[tuple[str, tuple[Stroke, ...]], ...]
    columns: int
    #: The quantity on the vertical axis, and whether it is a difference.
    quantity: str
    difference: bool
    #: What is on the horizontal axis, in the place of ε and of dots' epsilons; empty for ε.
    across: str = ""
    #: What is not drawn: "bands", "seeds", "rings".
    hide: tuple[str, ...] = ()
    #: The address of its view; empty where it is the page's.
    view: str = ""

    def as_csv(self) -> str:
        """Every number of the figure as CSV."""
        numbers = ("value", "lo", "hi", "method", "images", "seeds")
        rows: list[list[object]] = [["panel", "rule", self.across or "epsilon", *numbers, "by_seed", "filled", "flags"]]
        for title, strokes in self.panels:
            for stroke in strokes:
                for dot in stroke.dots:
                    score = dot.score
                    values = (score.value, score.lo, score.hi, score.method, score.n, score.seeds)
                    by_seed = "; ".join(f"{seed}: {value}" for seed, value in dot.by_seed.items())
                    flags = ", ".join(dot.flags)
                    rows.append([title, stroke.label, dot.label, *values, by_seed, dot.filled, flags])
        return csv_text(rows)


def csv_text(rows: Iterable[Sequence[object]]) -> str:
    """Rows as CSV, the first of them the header."""
    sink = io.StringIO()
    csv.writer(sink, lineterminator="\n").writerows(rows)
    return sink.getvalue()


def of_curves(
    panels: Sequence[tuple[str, Sequence[Curve]]],
    columns: int,
    rings: Mapping[tuple[int, float], Sequence[str]] | None = None,
    hide: tuple[str, ...] = (),
) -> Drawing:
    """The drawing of scores; `rings` are the flags of points, by line and epsilon."""
    strokes = [(title, tuple(_scores(curve, rings or {}) for curve in curves)) for title, curves in panels]
    names = style.scores(curve.score_name for _, curves in panels for curve in curves)
    return Drawing(panels=tuple(strokes), columns=columns, quantity=f"{names}, %", difference=False, hide=hide)


def of_gaps(
    panels: Sequence[tuple[str, Sequence[GapLine]]], columns: int, quantity: str, hide: tuple[str, ...] = ()
) -> Drawing:
    """The drawing of differences, in points."""
    strokes = [(title, tuple(_differences(line) for line in lines)) for title, lines in panels]
    return Drawing(panels=tuple(strokes), columns=columns, quantity=quantity, difference=True, hide=hide)


def _scores(curve: Curve, rings: Mapping[tuple[int, float], Sequence[str]]) -> Stroke:
    dots = [
        Dot(
            epsilon=point.epsilon,
            label=point.label,
            score=point.score,
            by_seed=point.by_seed,
            filled=not curve.thin(point),
            flags=tuple(rings.get((curve.line, point.epsilon), ())),
        )
        for point in curve.points
    ]
    return Stroke(curve=curve, dots=tuple(dots))


def _differences(line: GapLine) -> Stroke:
    dots = [
        Dot(epsilon=p.point.epsilon, label=p.point.label, score=p.gap, by_seed={}, filled=p.clear) for p in line.points
    ]
    return Stroke(curve=line.curve, dots=tuple(dots))

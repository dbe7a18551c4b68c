"""Gaps between lines, paired by seed and image, corrected over a family that does not depend on what is shown."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Sequence

from orchestrator.explorer.curve import Curve, Point
from orchestrator.explorer.holm import holm
from orchestrator.explorer.line import Line
from orchestrator.explorer.query import Query
from signsym_core.stats import Interval


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapPoint:
    """A gap at one epsilon."""

    point: Point
    #: With its 95 % interval.
    gap: Interval
    #: Whether the interval corrected over the family excludes zero.
    clear: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class GapLine:
    """The gaps of one line, and how many comparisons they were corrected over."""

    curve: Curve
    points: tuple[GapPoint, ...]
    family: int

    def at(self, epsilon: float) -> GapPoint | None:
        """The gap at an epsilon."""
        return next((point for point in self.points if point.point.epsilon == epsilon), None)


def gap_lines(query: Query, lines: Sequence[Line], minus: str) -> list[GapLine]:
    """The gaps of those of `lines` that have something to be compared with. `minus` is "bp" or "exact".

    The family of a line is every comparison of its panel in the store: each rule that has a counterpart, at each
    epsilon, whatever the filters show.
    """
    panels = dict.fromkeys(line.panel for line in lines)
    members: dict[tuple[str, ...], list[Line]] = {panel: [] for panel in panels}
    for line in query.index.ordered:
        if line.panel in members:
            members[line.panel].append(line)
    query.curves(line for family in members.values() for line in family)
    clear: set[tuple[int, float]] = set()
    sizes: dict[tuple[str, ...], int] = {}
    for panel, family in members.items():
        comparisons = _comparisons(query, family, minus)
        sizes[panel] = len(comparisons)
        clear |= holm(comparisons)
    made = []
    for curve in query.curves(lines):
        points = [
            GapPoint(point=point, gap=gap, clear=(curve.line, point.epsilon) in clear)
            for point in curve.points
            if (gap := _gap(point, minus)) is not None
        ]
        if points:
            size = sizes[query.index.lines[curve.line].panel]
            made.append(GapLine(curve=curve, points=tuple(points), family=size))
    return made


def _comparisons(
    query: Query, family: Iterable[Line], minus: str
) -> dict[tuple[int, float], Callable[[float], Interval]]:
    comparisons: dict[tuple[int, float], Callable[[float], Interval]] = {}
    for curve in query.curves(family):
        line = query.index.lines[curve.line]
        other = query.bp(line) if minus == "bp" else query.exact(line)
        for point in curve.points:
            known = _gap(point, minus)
            if other is not None and known is not None:
                found = functools.partial(_at_confidence, query, line, other, point.epsilon, known)
                comparisons[curve.line, point.epsilon] = found
    return comparisons


def _at_confidence(
    query: Query, line: Line, other: Line, epsilon: float, known: Interval, confidence: float
) -> Interval:
    # What includes zero at 95 % does at every higher confidence: there is nothing to compute.
    if not known.excludes_zero:
        return known
    found = query.gap(line, other, epsilon, confidence)
    assert found is not None, "outcomes that were paired before can be paired again"
    return found


def _gap(point: Point, minus: str) -> Interval | None:
    return point.over_bp if minus == "bp" else point.over_exact

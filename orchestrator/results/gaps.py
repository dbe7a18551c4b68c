"""Gaps between lines, paired by seed and image, corrected over a family that does not depend on what is shown."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from orchestrator.results.curve import Curve, Point
from orchestrator.results.holm import holm
from orchestrator.results.line import Line
from orchestrator.results.query import Query
from signsym_core.statistics.intervals import Interval


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

    def point(self, epsilon: float) -> GapPoint | None:
        """The gap at an epsilon."""
        return next((point for point in self.points if point.point.epsilon == epsilon), None)


def gap_lines(query: Query, lines: Sequence[Line], minus: str) -> list[GapLine]:
    """The gaps of those `lines` that have a counterpart. `minus` is "bp" or "exact".

    The family of a line is every comparison of its panel in the store: each rule that has a counterpart, at each
    epsilon, whatever the filters show. What is 0 by construction, as BP's gap to the exact gradient, compares nothing.
    """
    panels = dict.fromkeys(line.panel for line in lines)
    members = {panel: query.index.panels[panel] for panel in panels}
    query.curves(line for family in members.values() for line in family)
    clear: set[tuple[int, float]] = set()
    sizes: dict[tuple[str, ...], int] = {}
    for panel, family in members.items():
        comparisons = _comparisons(query, family, minus)
        sizes[panel] = len(comparisons)
        clear |= holm(comparisons)
    with_gaps = []
    for curve in query.curves(lines):
        points = [
            GapPoint(point=point, gap=gap, clear=(curve.line, point.epsilon) in clear)
            for point in curve.points
            if (gap := _gap(point, minus)) is not None
        ]
        if points:
            size = sizes[query.index.lines[curve.line].panel]
            with_gaps.append(GapLine(curve=curve, points=tuple(points), family=size))
    return with_gaps


def _comparisons(query: Query, family: Iterable[Line], minus: str) -> dict[tuple[int, float], Interval]:
    return {
        (curve.line, point.epsilon): gap
        for curve in query.curves(family)
        for point in curve.points
        if (gap := _gap(point, minus)) is not None and (gap.lo, gap.hi) != (0, 0)
    }


def _gap(point: Point, minus: str) -> Interval | None:
    return point.over_bp if minus == "bp" else point.over_exact

"""Scores at one epsilon: the points of lines, and which line of a row is best."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from orchestrator.results.curve import Point
from orchestrator.results.holm import holm
from orchestrator.results.index import AmbiguousCurveError
from orchestrator.results.line import Line
from orchestrator.results.query import Query

K = TypeVar("K")
#: Epsilons whose points are kept for each query.
KEPT = 4
_own: weakref.WeakKeyDictionary[Query, dict[float, Query]] = weakref.WeakKeyDictionary()


def points_at(
    query: Query, lines: Sequence[Line], epsilon: float
) -> tuple[dict[int, Point], dict[int, tuple[str, str]]]:
    """By the line's number its point at an epsilon, or where its results give none, in a word and a sentence why.

    Only the one epsilon is computed: whole curves of a large table take five times as long.
    """
    index, cut = query.index, []
    lacking: dict[int, tuple[str, str]] = {}
    for line in lines:
        try:
            index.refuse_ambiguous(line)
        except AmbiguousCurveError as error:
            lacking[line.number] = "two results", str(error)
            continue
        at = index.epsilon[line.start : line.stop]
        start, stop = (line.start + int(np.searchsorted(at, epsilon, side)) for side in ("left", "right"))
        cut.append(dataclasses.replace(line, start=start, stop=stop))
    own = _at(query, epsilon)
    points = {curve.line: curve.points[0] for curve in own.curves(cut)}
    return points, lacking | dict.fromkeys(own.bare, ("no outcomes", ""))


def _at(query: Query, epsilon: float) -> Query:
    """A query for one epsilon: each keeps curves by the line's number, and these are of one point."""
    kept = _own.setdefault(query, {})
    own = kept.get(epsilon)
    if own is None:
        for old in list(kept)[: 1 - KEPT]:
            kept.pop(old, None)
        own = kept[epsilon] = Query(query.index, query.outcomes, tuple(query.seeds))
    return own


def best(query: Query, pairs: Mapping[K, tuple[Line, Line]], epsilon: float) -> tuple[set[K], int]:
    """The keys of those pairs whose first line lies above its second, after Holm's correction over all pairs that can
    be compared, and the number of these.
    """
    samples = query.samples(line for pair in pairs.values() for line in pair)
    there = {key: (samples.of(first, epsilon), samples.of(second, epsilon)) for key, (first, second) in pairs.items()}
    compared = samples.gaps({key: (ours, theirs) for key, (ours, theirs) in there.items() if ours and theirs})
    return {key for key in holm(compared) if compared[key].value > 0}, len(compared)

"""Scores at one epsilon: the points of lines, and which line of a row is best."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Mapping, Sequence
from typing import TypeVar

import numpy as np

from orchestrator.results.curve import Point
from orchestrator.results.holm import holm
from orchestrator.results.line import Line
from orchestrator.results.query import Query

K = TypeVar("K")
#: Epsilons whose points are kept for each query.
KEPT = 4
_queries_at: weakref.WeakKeyDictionary[Query, dict[float, Query]] = weakref.WeakKeyDictionary()


def points_at(
    query: Query, lines: Sequence[Line], epsilon: float
) -> tuple[dict[int, Point], dict[int, tuple[str, str]]]:
    """The point of each line at an epsilon, by line number; and for lines without one, the reason: a word, a sentence.

    Only the one epsilon is computed: whole curves of a large table take five times as long.
    """
    index, cut = query.index, []
    lacking: dict[int, tuple[str, str]] = {}
    for line in lines:
        if reason := index.ambiguity(line):
            lacking[line.number] = "older version" if line.number in index.outdated else "two results", reason
            continue
        epsilons = index.epsilon[line.start : line.stop]
        start, stop = (line.start + int(np.searchsorted(epsilons, epsilon, side)) for side in ("left", "right"))
        cut.append(dataclasses.replace(line, start=start, stop=stop))
    at_epsilon = _query_at(query, epsilon)
    points = {curve.line: curve.points[0] for curve in at_epsilon.curves(cut)}
    return points, lacking | dict.fromkeys(at_epsilon.without_outcomes, ("no outcomes", ""))


def _query_at(query: Query, epsilon: float) -> Query:
    """The query that holds the curves of one epsilon: a query keeps curves by line number, and these have one point."""
    kept = _queries_at.setdefault(query, {})
    at_epsilon = kept.get(epsilon)
    if at_epsilon is None:
        for old in list(kept)[: 1 - KEPT]:
            kept.pop(old, None)
        at_epsilon = kept[epsilon] = Query(query.index, query.outcomes, tuple(query.seeds))
    return at_epsilon


def best(query: Query, pairs: Mapping[K, tuple[Line, Line]], epsilon: float) -> tuple[set[K], int]:
    """The keys of those pairs whose first line lies above its second, after Holm's correction over all pairs that can
    be compared, and the number of these.
    """
    samples = query.samples(line for pair in pairs.values() for line in pair)
    sampled = {key: (samples.of(first, epsilon), samples.of(second, epsilon)) for key, (first, second) in pairs.items()}
    compared = samples.gaps(
        {
            key: (first_sample, second_sample)
            for key, (first_sample, second_sample) in sampled.items()
            if first_sample and second_sample
        }
    )
    return {key for key in holm(compared) if compared[key].value > 0}, len(compared)

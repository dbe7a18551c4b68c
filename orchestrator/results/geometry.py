"""The loss around the test images: what the attack `geometry` measured, as means over images and seeds.

Legend: g* the exact gradient of the cross-entropy at an image, g the gradient that the attack follows.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.index import Index
from orchestrator.results.joined import JoinedCells
from orchestrator.results.line import Line
from orchestrator.results.query import Query
from orchestrator.results.stored_cells import StoredCells
from orchestrator.store import tables
from signsym_core.statistics.intervals import Interval, mean_of

#: The attack that measures.
ATTACK = "geometry"
#: Between what its numbers lie whatever is measured, by the names of `tables.MEASURES`; the rise has no bounds.
_RANGES = {
    "grad_l1": (0.0, math.inf),
    "grad_l2": (0.0, math.inf),
    "cosine": (-1.0, 1.0),
    "sign_agreement": (0.0, 1.0),
    "linearity": (0.0, math.inf),
}
Columns = Mapping[str, NDArray[np.float64]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Geometry:
    """The loss around the images of one line at one ε."""

    line: Line
    epsilon: float
    label: str
    #: Key of the cell of the first seed.
    cell: str
    #: By the names of `tables.MEASURES`, without those that no image has: for each the mean over the images that have
    #: it in every seed.
    means: Mapping[str, Interval]
    #: What a loss that were linear would rise by in a sign step along g*: the mean of ε |g*|₁.
    predicted: Interval | None


def measured_lines(index: Index, lines: Iterable[Line]) -> list[Line]:
    """The lines of ATTACK on the models of some lines, each once."""
    models = dict.fromkeys(line.model for line in lines)
    return [line for model in models for line in index.models[model] if line.attack == ATTACK]


def geometries(
    query: Query, cells: StoredCells | JoinedCells, lines: Iterable[Line], epsilon: float | None = None
) -> list[Geometry]:
    """What was measured of each line: at every ε above 0, or at that which is nearest to `epsilon`.

    Lines of which nothing was measured, as of images that were made on a surrogate, and lines with two results for one
    seed and ε are left out.
    """
    points = []
    for line in lines:
        if query.index.ambiguity(line):
            continue
        known = [value for value in query.epsilons(line) if value > 0]
        if epsilon is not None:
            known = sorted(known, key=lambda value: abs(value - epsilon))[:1]
        points += [(line, rows) for value in known if (rows := [*query.rows_by_seed(line, value).values()])]
    by_cell = cells.measured(query.index, [row for _, rows in points for row in rows]) if points else {}
    return [geometry for line, rows in points if (geometry := _of(query.index, line, rows, by_cell)) is not None]


def _of(index: Index, line: Line, rows: Sequence[int], by_cell: Mapping[str, Columns]) -> Geometry | None:
    names = [str(index.value("cell", row)) for row in rows]
    columns = [by_cell[name] for name in names if name in by_cell]
    if not columns:
        return None
    shared = functools.reduce(np.intersect1d, [of_cell["image"] for of_cell in columns])
    means = {}
    for name in tables.MEASURES:
        x = np.array([of_cell[name][np.isin(of_cell["image"], shared)] for of_cell in columns])
        x = x[:, np.isfinite(x).all(axis=0)]
        if x.size:
            least, most = _RANGES.get(name, (-math.inf, math.inf))
            means[name] = mean_of(x, least=least, most=most)
    if not means:
        return None
    slope, epsilon = means.get("grad_l1"), float(index.epsilon[rows[0]])
    return Geometry(
        line=line,
        epsilon=epsilon,
        label=str(index.value("epsilon_label", rows[0])),
        cell=names[0],
        means=means,
        predicted=None if slope is None else _times(slope, epsilon),
    )


def _times(number: Interval, factor: float) -> Interval:
    ends = {name: factor * getattr(number, name) for name in ("value", "lo", "hi")}
    return dataclasses.replace(number, **ends)

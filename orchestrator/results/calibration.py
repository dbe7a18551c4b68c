"""How well models know when they are right, on their test images without an attack, clean or corrupted.

Legend: c the probability of the class that an image is given, r whether that class is right: 1 or 0.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.index import Index
from orchestrator.results.joined import JoinedCells
from orchestrator.results.line import Line
from orchestrator.results.query import Query
from orchestrator.results.stored_cells import StoredCells
from signsym_core.statistics.calibration import error_by_chance, expected_calibration_error
from signsym_core.statistics.intervals import Interval, interval, mean_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Calibration:
    """The calibration of one model, over its seeds and the images that all of them have."""

    line: Line
    #: Key of the cell of the first seed.
    cell: str
    #: Means over images and seeds: of r, of c, and of (c - r)², the Brier score of the top label.
    accuracy: Interval
    confidence: Interval
    brier: Interval
    #: The expected calibration error: the mean over seeds with Student's interval, which one seed has none of.
    ece: Interval
    #: The mean over seeds of the error that would be there by chance were every confidence right.
    by_chance: float


def calibrations(query: Query, cells: StoredCells | JoinedCells, lines: Iterable[Line]) -> list[Calibration]:
    """The calibration of the models of some lines without an attack, of those whose confidences are stored.

    Lines with two results for one seed are left out.
    """
    sound = [line for line in lines if not query.index.ambiguity(line)]
    by_line = [(line, rows) for line in sound if (rows := [*query.rows_by_seed(line, 0.0).values()])]
    by_cell = cells.measured(query.index, [row for _, rows in by_line for row in rows]) if by_line else {}
    return [calibrated for line, rows in by_line if (calibrated := _of(query.index, line, rows, by_cell)) is not None]


def _of(
    index: Index, line: Line, rows: Sequence[int], by_cell: Mapping[str, Mapping[str, NDArray[np.float64]]]
) -> Calibration | None:
    names = [str(index.value("cell", row)) for row in rows]
    known = [by_cell[name] for name in names if name in by_cell and np.isfinite(by_cell[name]["confidence"]).all()]
    # Seeds that were evaluated before confidences were stored would make it the calibration of some of them.
    if len(known) < len(rows):
        return None
    shared = functools.reduce(np.intersect1d, [of_cell["image"] for of_cell in known])
    if not len(shared):
        return None
    c, r = (
        np.array([of_cell[name][np.isin(of_cell["image"], shared)] for of_cell in known])
        for name in ("confidence", "robust")
    )
    errors = [expected_calibration_error(*of_seed) for of_seed in zip(c, r, strict=True)]
    return Calibration(
        line=line,
        cell=names[0],
        accuracy=interval(r),
        confidence=_share(c),
        brier=_share((c - r) ** 2),
        ece=dataclasses.replace(_share(np.array(errors)[:, None]), n=len(shared), method="student"),
        by_chance=float(np.mean([error_by_chance(of_seed) for of_seed in c])),
    )


def _share(x: NDArray[np.float64]) -> Interval:
    return mean_of(x, least=0.0, most=1.0)

"""Points and curves with what their rows say of them, beside their scores."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.curve import Curve, Point
from orchestrator.results.index import Index
from orchestrator.results.labels import gradient, score_name
from orchestrator.results.line import Line
from signsym_core.statistics.intervals import Interval


def point_of(
    epsilon: float,
    label: str,
    cell: str,
    score: Interval,
    by_seed: dict[int, float],
    moved: NDArray[np.float64],
    over_bp: Interval | None = None,
    over_exact: Interval | None = None,
) -> Point:
    """The point at an ε, of this label, whose first row is that of `cell`; `moved` are the changes of pixels of its
    rows, NaN where unknown.
    """
    moved = moved[~np.isnan(moved)]
    return Point(
        epsilon=epsilon,
        label=label,
        score=score,
        by_seed=by_seed,
        over_bp=over_bp,
        over_exact=over_exact,
        reach=float(moved.mean()) if len(moved) else float("nan"),
        cell=cell,
    )


def curve_of(index: Index, line: Line, points: Mapping[float, Point]) -> Curve:
    """The curve of a line, of its points by epsilon."""
    return Curve(
        line=line.number,
        figure=line.figure,
        title=index.labels.title(line),
        backbone_label=index.labels.of(line, "backbone"),
        dataset_label=index.labels.dataset(line),
        rule=line.rule,
        rule_label=index.labels.of(line, "rule"),
        attack=line.attack,
        attack_label=index.labels.of(line, "attack"),
        gradient=gradient(line),
        task=line.task,
        score_name=score_name(line.task, line.task_params, line.metric),
        norm=str(index.value("norm", line.start)),
        chance=float(np.nan_to_num(index.numbers("chance", np.arange(line.start, line.stop)), nan=0.0).max()),
        points=tuple(points[epsilon] for epsilon in sorted(points)),
    )

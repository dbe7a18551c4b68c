"""A curve and its points: every number with its interval, and what their rows say of them beside their scores."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.index import Index
from orchestrator.results.labels import gradient, score_name
from orchestrator.results.line import Line
from signsym_core.statistics.intervals import Interval

#: A result with fewer images or seeds is called small.
FEW_IMAGES, FEW_SEEDS = 1000, 3


def few(numbers: Iterable[Interval]) -> bool:
    """Whether one of them rests on too few images or seeds for a firm claim."""
    return any(number.n < FEW_IMAGES or number.seeds < FEW_SEEDS for number in numbers)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """A curve at one epsilon."""

    epsilon: float
    label: str
    score: Interval
    #: The score of each seed.
    by_seed: dict[int, float]
    #: Score minus that of BP in the same panel, paired by seed and image; None where BP is absent, or for BP itself.
    over_bp: Interval | None
    #: Score minus that under the exact gradient on the same weights, paired; None where there is none.
    over_exact: Interval | None
    #: Mean over images of the largest change of a pixel, over epsilon.
    reach: float
    #: Key of the cell of the first seed, which identifies the point; of a worst case, that of its strongest run.
    cell: str
    #: The runs that a worst case is over, the strongest first; none for a point of one attack.
    runs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curve:
    """One line: a rule under one attack with one source of gradient."""

    #: The line's number in its index.
    line: int
    #: Values of FIGURE's columns.
    figure: tuple[str, ...]
    #: Name and parameters of the figure, rule and attack, as people read them.
    title: str
    backbone_label: str
    #: With the settings that `title` has.
    dataset_label: str
    rule: str
    rule_label: str
    attack: str
    attack_label: str
    gradient: str
    task: str
    #: What its values are: "robust accuracy", "mAP@1000".
    score_name: str
    norm: str
    chance: float
    points: tuple[Point, ...]

    def thin(self, point: Point) -> bool:
        """Whether the worst case at a point is over fewer runs than at another ε: it may be higher for that alone."""
        return point.epsilon > 0 and len(point.runs) < self._most

    @functools.cached_property
    def _most(self) -> int:
        """The runs that the worst case at an ε is over, at most."""
        return max((len(point.runs) for point in self.points if point.epsilon > 0), default=0)

    def point(self, epsilon: float) -> Point | None:
        """The point at an epsilon."""
        return next((point for point in self.points if point.epsilon == epsilon), None)


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
        score_name=score_name(line),
        norm=str(index.value("norm", line.start)),
        chance=float(np.nan_to_num(index.numbers("chance", np.arange(line.start, line.stop)), nan=0.0).max()),
        points=tuple(points[epsilon] for epsilon in sorted(points)),
    )

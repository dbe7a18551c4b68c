"""From rows to curves: every number with its interval, and none that depends on what else is shown.

Legend: X [seeds, images], a point's outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from orchestrator.explorer.index import FIGURE, LINE, Index, Line
from orchestrator.explorer.index import AmbiguousCurveError as AmbiguousCurveError
from orchestrator.explorer.outcomes import GivenOutcomes, Outcome, Outcomes
from signsym_core.stats import Interval, gap, interval

#: Below these a result is called small.
FEW_IMAGES, FEW_SEEDS = 1000, 3


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
    #: Key of the cell of the first seed, by which the point is found again.
    cell: str


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
    dataset_label: str
    rule: str
    rule_label: str
    attack: str
    attack_label: str
    gradient: str
    metric: str
    norm: str
    chance: float
    points: tuple[Point, ...]

    @property
    def n(self) -> int:
        """Images of the smallest point."""
        return min(point.score.n for point in self.points)

    @property
    def seeds(self) -> int:
        """Seeds of the point that has fewest."""
        return min(point.score.seeds for point in self.points)

    @property
    def small(self) -> bool:
        """Whether the line rests on too few images or seeds for a firm claim."""
        return self.n < FEW_IMAGES or self.seeds < FEW_SEEDS

    def at(self, epsilon: float) -> Point | None:
        """The point at an epsilon."""
        return next((point for point in self.points if point.epsilon == epsilon), None)


class Query:
    """Curves of an index, each computed once. `seeds` restricts what they rest on; none stands for all."""

    def __init__(self, index: Index, outcomes: Outcomes, seeds: Sequence[int] = ()) -> None:
        self.index, self.outcomes = index, outcomes
        self.seeds = frozenset(seeds)
        #: Lines that have no curve for having two values at one place, by number, with the reason.
        self.ambiguous: dict[int, str] = {}
        self._made: dict[int, Curve | None] = {}

    def curves(self, lines: Iterable[Line]) -> list[Curve]:
        """The curves of these lines, in their order, but those without any outcome.

        A line with two values for one seed and epsilon has no curve; `ambiguous` says why.
        """
        lines = list(lines)
        new = [line for line in lines if line.number not in self._made]
        related = {other.number: other for line in new for other in (line, self.bp(line), self.exact(line)) if other}
        self.ready(related.values())
        for line in new:
            try:
                self.index.refuse_ambiguous(line)
                self._made[line.number] = self._curve(line)
            except AmbiguousCurveError as error:
                self.ambiguous[line.number] = str(error)
                self._made[line.number] = None
        return [curve for line in lines if (curve := self._made[line.number]) is not None]

    def ready(self, lines: Iterable[Line]) -> None:
        """Have the outcomes of these lines read together."""
        column = self.index.table["job"]
        jobs: set[str] = set()
        for line in lines:
            jobs.update(column.slice(line.start, line.stop - line.start).unique().to_pylist())
        self.outcomes.load(jobs)

    def bp(self, line: Line) -> Line | None:
        """BP in the same panel; None for BP itself."""
        return None if line.rule == "bp" else self._baselines.get(line.panel)

    def exact(self, line: Line) -> Line | None:
        """The same weights under the exact gradient; None for a line that is not under the model's own feedback."""
        if line.gradient != "feedback":
            return None
        at = LINE.index("gradient")
        return self.index.named((*line.key[:at], "exact", *line.key[at + 1 :]))

    def cells(self, line: Line, epsilon: float) -> dict[int, Outcome]:
        """The outcomes of each seed at an epsilon."""
        rows = self._rows(line, epsilon)
        column = self.index.table["cell"]
        found = {int(self.index.seed[row]): self.outcomes.of(column[row].as_py()) for row in rows}
        return {seed: outcome for seed, outcome in found.items() if outcome is not None}

    def epsilons(self, line: Line) -> list[float]:
        """The epsilons of a line, ascending."""
        return [float(epsilon) for epsilon in self.index.epsilon[self.index.points(line)]]

    def pair(self, ours: Line, theirs: Line, epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """X of both over the seeds and images that both have; None where they share none."""
        return paired(self.cells(ours, epsilon), self.cells(theirs, epsilon))

    def gap(self, ours: Line, theirs: Line | None, epsilon: float, confidence: float = 0.95) -> Interval | None:
        """Ours minus theirs, paired; None where they share no seed or image."""
        both = None if theirs is None else self.pair(ours, theirs, epsilon)
        return None if both is None else gap(*both, confidence=confidence)

    @functools.cached_property
    def _baselines(self) -> dict[tuple[str, ...], Line]:
        found: dict[tuple[str, ...], Line] = {}
        for line in self.index.ordered:
            if line.rule == "bp":
                found.setdefault(line.panel, line)
        return found

    def _rows(self, line: Line, epsilon: float) -> list[int]:
        at = self.index.epsilon[line.start : line.stop]
        start, stop = np.searchsorted(at, epsilon, "left"), np.searchsorted(at, epsilon, "right")
        rows = range(line.start + int(start), line.start + int(stop))
        return [row for row in rows if not self.seeds or int(self.index.seed[row]) in self.seeds]

    def _curve(self, line: Line) -> Curve | None:
        points = tuple(point for e in self.epsilons(line) if (point := self._point(line, e)) is not None)
        if not points:
            return None
        index = self.index
        return Curve(
            line=line.number,
            figure=line.figure,
            title=index.title(line),
            backbone_label=index.label(line, "backbone"),
            dataset_label=index.label(line, "dataset"),
            rule=line.rule,
            rule_label=index.label(line, "rule"),
            attack=line.attack,
            attack_label=index.label(line, "attack"),
            gradient=line.gradient,
            metric=line.metric,
            norm=str(index.value("norm", line.start)),
            chance=_largest(index, "chance", line),
            points=points,
        )

    def _point(self, line: Line, epsilon: float) -> Point | None:
        rows = self._rows(line, epsilon)
        cells = self.cells(line, epsilon)
        x = matrix(cells)
        if x is None:
            return None
        reach = [value for row in rows if isinstance(value := self.index.value("reach", row), float)]
        return Point(
            epsilon=epsilon,
            label=str(self.index.value("epsilon_label", rows[0])),
            score=interval(x),
            by_seed={seed: float(outcome.scores.mean(dtype=np.float64)) for seed, outcome in cells.items()},
            over_bp=self.gap(line, self.bp(line), epsilon),
            over_exact=self.gap(line, self.exact(line), epsilon),
            reach=float(np.mean(reach)) if reach else float("nan"),
            cell=str(self.index.value("cell", rows[0])),
        )


def matrix(cells: dict[int, Outcome]) -> NDArray[np.float64] | None:
    """X over the images that all seeds share; None where there are none."""
    images = _shared_images(cells.values())
    if images is None:
        return None
    return np.array([_at(cells[seed], images) for seed in sorted(cells)])


def paired(
    mine: dict[int, Outcome], theirs: dict[int, Outcome]
) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
    """X of both over the seeds and images that both have."""
    seeds = sorted(set(mine) & set(theirs))
    images = _shared_images([side[seed] for side in (mine, theirs) for seed in seeds])
    if images is None:
        return None
    ours, others = (np.array([_at(side[seed], images) for seed in seeds]) for side in (mine, theirs))
    return ours, others


def curves(results: pd.DataFrame, outcomes: pd.DataFrame) -> list[Curve]:
    """Every line that the rows hold, attacks without "none", in the order of figures.

    Raises AmbiguousCurveError where a line has two different values for one seed and epsilon.
    """
    query = Query(Index.of_frame(results), GivenOutcomes(outcomes))
    found = query.curves(line for line in query.index.ordered if line.attack != "none")
    for reason in query.ambiguous.values():
        raise AmbiguousCurveError(reason)
    return found


def clean_scores(query: Query) -> list[Curve]:
    """Every model's clean performance over its seeds: curves of one point."""
    return query.curves(line for line in query.index.ordered if line.attack == "none")


def by_figure(lines: Sequence[Curve]) -> dict[tuple[str, ...], list[Curve]]:
    """The curves of each figure."""
    found: dict[tuple[str, ...], list[Curve]] = {}
    for line in lines:
        found.setdefault(line.figure, []).append(line)
    return found


def _shared_images(outcomes: Iterable[Outcome]) -> NDArray[np.int64] | None:
    shared: NDArray[np.int64] | None = None
    for outcome in outcomes:
        if shared is None:
            shared = outcome.images
        elif outcome.images is not shared and not np.array_equal(outcome.images, shared):
            shared = np.intersect1d(shared, outcome.images, assume_unique=True)
    return None if shared is None or not len(shared) else shared


def _at(outcome: Outcome, images: NDArray[np.int64]) -> NDArray[np.float64]:
    if len(outcome.images) == len(images):
        return outcome.scores.astype(np.float64)
    return outcome.scores[np.searchsorted(outcome.images, images)].astype(np.float64)


def _largest(index: Index, column: str, line: Line) -> float:
    values = index.table[column].slice(line.start, line.stop - line.start).to_pandas()
    return float(values.max())



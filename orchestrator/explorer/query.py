"""From rows to curves: every number with its interval, and none that depends on what else is shown.

Legend: X [seeds, images], a point's outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.explorer.curve import Curve, Point
from orchestrator.explorer.index import AmbiguousCurveError, Index
from orchestrator.explorer.labels import score_name
from orchestrator.explorer.line import LINE, Line
from orchestrator.explorer.outcomes import Outcome, Outcomes
from orchestrator.explorer.pairing import matrix, paired
from signsym_core.stats import Interval, gap, interval


class Query:
    """Curves of an index, each computed once. `seeds` restricts what they rest on; none stands for all."""

    def __init__(self, index: Index, outcomes: Outcomes, seeds: Sequence[int] = ()) -> None:
        self.index, self.outcomes = index, outcomes
        self.seeds = frozenset(seeds)
        #: Lines that have no curve for having two values at one place, by number, with the reason.
        self.ambiguous: dict[int, str] = {}
        self._made: dict[int, Curve | None] = {}
        #: What `cells` found: a line is asked for by itself, as a baseline of others, and by every check.
        self._cells: dict[tuple[int, float], dict[int, Outcome]] = {}

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
        """The outcomes of each seed at an epsilon; those of lines that `ready` has seen."""
        known = self._cells.get((line.number, epsilon))
        if known is not None:
            return known
        column = self.index.table["cell"]
        rows = self.rows_by_seed(line, epsilon)
        found = {seed: self.outcomes.of(column[row].as_py()) for seed, row in rows.items()}
        there = {seed: outcome for seed, outcome in found.items() if outcome is not None}
        if len(there) == len(rows):
            self._cells[line.number, epsilon] = there
        return there

    def rows_by_seed(self, line: Line, epsilon: float) -> dict[int, int]:
        """The row of each seed at an epsilon."""
        return {int(self.index.seed[row]): row for row in self._rows(line, epsilon)}

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
            title=index.labels.title(line),
            backbone_label=index.labels.of(line, "backbone"),
            dataset_label=index.labels.of(line, "dataset"),
            rule=line.rule,
            rule_label=index.labels.of(line, "rule"),
            attack=line.attack,
            attack_label=index.labels.of(line, "attack"),
            gradient=line.gradient,
            task=line.task,
            score_name=score_name(line.task, line.task_params, line.metric),
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
            by_seed={seed: outcome.mean for seed, outcome in cells.items()},
            over_bp=self.gap(line, self.bp(line), epsilon),
            over_exact=self.gap(line, self.exact(line), epsilon),
            reach=float(np.mean(reach)) if reach else float("nan"),
            cell=str(self.index.value("cell", rows[0])),
        )


def _largest(index: Index, column: str, line: Line) -> float:
    values = index.table[column].slice(line.start, line.stop - line.start).to_pandas()
    return float(values.max())

"""From rows to curves: every number with its interval, and none that depends on what else is shown.

Legend: X [seeds, images], a point's outcomes: robust or not, or the average precision of a query.
"""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.curve import Curve, Point, curve_of, point_of
from orchestrator.results.index import Index
from orchestrator.results.line import LINE, Line
from orchestrator.results.outcomes import CellOutcomes, OutcomeReader
from orchestrator.results.pairing import matrix, paired
from orchestrator.results.sample import Sample, chunks
from orchestrator.results.samples import Samples
from signsym_core.statistics.intervals import Interval, interval, intervals, wilson


class Query:
    """Curves of an index, each computed once, over `seeds`; none stands for all seeds."""

    def __init__(self, index: Index, outcomes: OutcomeReader, seeds: Sequence[int] = ()) -> None:
        self.index, self.outcomes = index, outcomes
        self.seeds = frozenset(seeds)
        #: Lines without a curve because they have two values for one seed and epsilon: the reason, by line number.
        self.ambiguous: dict[int, str] = {}
        #: For lines that have results without outcomes, by line number, at how many epsilons.
        self.without_outcomes: dict[int, int] = {}
        self._curves: dict[int, Curve | None] = {}
        #: Several threads build pages at the same time and need the same curves.
        self._lock = threading.RLock()

    def curves(self, lines: Iterable[Line]) -> list[Curve]:
        """The curves of these lines, in their order, without those that have no outcome.

        A line with two values for one seed and epsilon has no curve; `ambiguous` says why.
        """
        lines = list(lines)
        with self._lock:
            new = {line.number: line for line in lines if line.number not in self._curves}
            for number, line in new.items():
                if reason := self.index.ambiguity(line):
                    self.ambiguous[number], self._curves[number] = reason, None
            self._compute([line for number, line in new.items() if number not in self._curves])
            return [curve for line in lines if (curve := self._curves[line.number]) is not None]

    def samples(self, lines: Iterable[Line]) -> Samples:
        """The samples of the points of some lines."""
        return Samples(self.index, self.outcomes, self.rows(lines))

    def rows(self, lines: Iterable[Line]) -> NDArray[np.int64]:
        """The rows of some lines, of the seeds of this query."""
        rows = np.concatenate([np.zeros(0, int), *(np.arange(line.start, line.stop) for line in lines)])
        return rows[np.isin(self.index.seed[rows], sorted(self.seeds))] if self.seeds else rows

    def bp(self, line: Line) -> Line | None:
        """BP in the same panel; None for BP itself, and where one of the two is its own surrogate.

        A white-box attack on one beside a black-box attack on the other compares attacks, not rules.
        """
        if line.rule == "bp" or line.attacks_itself:
            return None
        others = self.index.panels.get(line.panel, ())
        return next((other for other in others if other.rule == "bp" and not other.attacks_itself), None)

    def exact(self, line: Line) -> Line | None:
        """The same weights under the exact gradient; None for a line that is not under the model's own feedback."""
        if line.gradient != "feedback":
            return None
        position = LINE.index("gradient")
        return self.index.named((*line.key[:position], "exact", *line.key[position + 1 :]))

    def cells(self, line: Line, epsilon: float) -> dict[int, CellOutcomes]:
        """The outcomes of each seed at an epsilon."""
        samples = self.samples([line])
        sample = samples.of(line, epsilon)
        return {} if sample is None else samples.outcomes(sample)

    def rows_by_seed(self, line: Line, epsilon: float) -> dict[int, int]:
        """The row of each seed at an epsilon."""
        return {int(self.index.seed[row]): row for row in self._rows(line, epsilon)}

    def epsilons(self, line: Line) -> list[float]:
        """The epsilons of a line, ascending."""
        return [float(epsilon) for epsilon in self.index.epsilon[self.index.points(line)]]

    def pair(self, first: Line, second: Line, epsilon: float) -> tuple[NDArray[np.float64], NDArray[np.float64]] | None:
        """X of both over the seeds and images that both have; None where they share none."""
        return paired(self.cells(first, epsilon), self.cells(second, epsilon))

    def _rows(self, line: Line, epsilon: float) -> list[int]:
        epsilons = self.index.epsilon[line.start : line.stop]
        start, stop = np.searchsorted(epsilons, epsilon, "left"), np.searchsorted(epsilons, epsilon, "right")
        rows = range(line.start + int(start), line.start + int(stop))
        return [row for row in rows if not self.seeds or int(self.index.seed[row]) in self.seeds]

    def _compute(self, lines: Sequence[Line]) -> None:
        """Compute the curves of lines together."""
        twins = {line.number: tuple(map(self._sound, (self.bp(line), self.exact(line)))) for line in lines}
        related = {other.number: other for line in lines for other in (line, *twins[line.number]) if other is not None}
        samples = self.samples(related.values())
        needed: list[tuple[Line, float, Sample]] = []
        pairs: dict[tuple[int, int], tuple[Sample, Sample]] = {}
        for line in lines:
            for epsilon in self.epsilons(line):
                sample = samples.of(line, epsilon)
                if sample is None:
                    continue
                needed.append((line, epsilon, sample))
                for which, other in enumerate(twins[line.number]):
                    twin_sample = None if other is None else samples.of(other, epsilon)
                    if twin_sample is not None:
                        pairs[len(needed) - 1, which] = sample, twin_sample
        scores, by_seed = self._scores(samples, [sample for _, _, sample in needed])
        gaps, moved = samples.gaps(pairs), self.index.numbers("reach", samples.rows)
        rows = samples.rows[[sample.first for _, _, sample in needed]]
        labels, cells = self.index.texts("epsilon_label", rows), self.index.cells_at(rows)
        points: dict[int, dict[float, Point]] = {}
        for (position, which), gap in gaps.items():
            if which == 1 and gap.value == 0 and self._made_once(needed[position][0], samples, *pairs[position, 1]):
                # Not two attacks that happen to break the same images.
                gaps[position, 1] = dataclasses.replace(gap, lo=0.0, hi=0.0)
        for position, (line, epsilon, sample) in enumerate(needed):
            first, over = sample.first, [gaps.get((position, which)) for which in (0, 1)]
            changes, place = moved[first : first + len(sample.seeds)], (epsilon, labels[position], cells[position])
            point = point_of(*place, scores[position], by_seed[position], changes, *over)
            points.setdefault(line.number, {})[epsilon] = point
        for line in lines:
            self._curves[line.number] = self._curve(line, points.get(line.number, {}))

    def _sound(self, line: Line | None) -> Line | None:
        """The line, unless it is ambiguous: a gap would be to one of two."""
        return None if line is None or self.index.ambiguity(line) else line

    def _made_once(self, line: Line, samples: Samples, own: Sample, exact: Sample) -> bool:
        """Whether a line's outcomes are by construction those under the exact gradient on the same weights.

        BP's gradient is the exact one, at ε = 0 no image is changed, and a job whose rule has one gradient for both
        is reported under both names.
        """
        sides = [samples.rows[side.first : side.first + len(side.seeds)] for side in (own, exact)]
        if line.rule == "bp" or self.index.epsilon[sides[0][0]] == 0:
            return True
        jobs, others = (self.index.texts("job", rows) for rows in sides)
        return jobs == others

    def _scores(self, samples: Samples, needed: Sequence[Sample]) -> tuple[list[Interval], list[dict[int, float]]]:
        """The score of each sample, and that of each of its seeds."""
        scores: dict[int, Interval] = {}
        by_seed: dict[int, dict[int, float]] = {}
        for chunk in chunks(needed):
            x = samples.stacked([needed[position] for position in chunk])
            means = (x.sum(axis=2, dtype=np.float64) / x.shape[2]).tolist()
            for position, score, mean in zip(chunk, intervals(x), means, strict=True):
                scores[position], by_seed[position] = score, dict(zip(needed[position].seeds, mean, strict=True))
        for position, sample in enumerate(needed):
            if position not in scores:
                cells = samples.outcomes(sample)
                shared, seeds = matrix(cells), sample.seeds
                if shared is None:
                    # Where the seeds have no image in common, the score is that of the first seed.
                    shared, seeds = cells[seeds[0]].scores[None].astype(np.float64), seeds[:1]
                # The score of a seed is over the images that its score over all seeds is over.
                by_seed[position] = dict(zip(seeds, shared.mean(axis=1).tolist(), strict=True))
                scores[position] = interval(shared)
        return [scores[position] for position in range(len(needed))], [
            by_seed[position] for position in range(len(needed))
        ]

    def _curve(self, line: Line, points: dict[float, Point]) -> Curve | None:
        for epsilon in self.epsilons(line):
            if epsilon not in points and (rows := self._rows(line, epsilon)):
                point = self._from_value(line, epsilon, rows)
                if point is None:
                    self.without_outcomes[line.number] = self.without_outcomes.get(line.number, 0) + 1
                else:
                    points[epsilon] = point
        if not points:
            return None
        return curve_of(self.index, line, points)

    def _from_value(self, line: Line, epsilon: float, rows: Sequence[int]) -> Point | None:
        """A point without outcomes: Wilson's interval of the stored share; None unless it rests on a single seed."""
        value, n = (self.index.numbers(name, rows[:1])[0] for name in ("value", "n"))
        if len(rows) > 1 or line.metric != "top1" or not 0 <= value <= 1 or not n >= 1:
            return None
        lo, hi = wilson(round(float(value) * int(n)), int(n))
        score = Interval(value=float(value), lo=lo, hi=hi, n=int(n), seeds=1, method="wilson")
        by_seed, moved = {int(self.index.seed[rows[0]]): float(value)}, self.index.numbers("reach", rows)
        label, cell = (str(self.index.value(name, rows[0])) for name in ("epsilon_label", "cell"))
        return point_of(epsilon, label, cell, score, by_seed, moved)

"""The checks of `signsym_core.masking` on the lines of a store: which apply, and what they find at which epsilon."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.explorer.curve import Curve
from orchestrator.explorer.line import Line
from orchestrator.explorer.pairing import matrix
from orchestrator.explorer.query import Query
from signsym_core import masking
from signsym_core.masking import Finding

X = NDArray[np.float64]

#: Every check with what it needs where it cannot be made.
CHECKS = {
    "exact_gradient_breaks": "needs the attack with gradient: exact",
    "transfer_stronger": "needs the attack with gradient: transfer",
    "one_step_stronger": "needs fgsm with the same gradient, beside an attack of several steps",
    "more_steps_help": "needs the same attack with more steps",
    "black_box_stronger": "needs a black-box attack of the same norm at the same ε",
    "noise_as_strong": "needs the attack noise at the same ε",
    "grey_limit": "needs ε of 0.5 or more",
    "not_monotone": "needs two epsilons",
    "zero_gradient": "needs an attack that asks for a gradient",
    "short_reach": "needs an attack of gradient steps",
    "random_forward": "needs the clean performance and the attack at ε = 0",
    "small_n": "",
}
#: What is no attack on the model's gradient.
_NULL = {"none", "noise"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A finding at an epsilon; None where it is about the whole line."""

    finding: Finding
    epsilon: float | None = None


class Flags:
    """The findings of lines, each line checked once."""

    def __init__(self, query: Query) -> None:
        self.query = query
        self._found: dict[int, dict[str, list[Found]]] = {}

    def of(self, line: Line) -> dict[str, list[Found]]:
        """By check, what it found on the line; a check that cannot be made is not in it."""
        if line.number not in self._found:
            found: dict[str, list[Found]] = {}
            for made in self._check(line):
                found.setdefault(made.finding.flag, []).append(made)
            self._found[line.number] = found
        return self._found[line.number]

    def rings(self, curves: Sequence[Curve]) -> dict[tuple[int, float], tuple[str, ...]]:
        """The flags raised at each point, but `small_n`, which a panel's title tells."""
        rings: dict[tuple[int, float], tuple[str, ...]] = {}
        for curve in curves:
            for flag, made in self.of(self.query.index.lines[curve.line]).items():
                for found in made:
                    if found.finding.raised and found.epsilon is not None and flag != "small_n":
                        at = (curve.line, found.epsilon)
                        rings[at] = (*rings.get(at, ()), flag)
        return rings

    def _check(self, line: Line) -> Iterator[Found]:
        query = self.query
        others = [other for other in self.query.index.models[line.model] if other != line]
        cells = {epsilon: query.cells(line, epsilon) for epsilon in query.epsilons(line)}
        x = {epsilon: found for epsilon, seeds in cells.items() if (found := matrix(seeds)) is not None}
        if not x:
            return
        seeds, n = next(iter(x.values())).shape
        yield Found(finding=masking.small_n(n, seeds))
        yield from self._alone(line, x)
        zeros = [o.zero for seed in cells.values() for o in seed.values() if o.zero is not None]
        if zeros and len({len(zero) for zero in zeros}) == 1:
            yield Found(finding=masking.zero_gradient(np.array(zeros)))
        white = line.gradient != "none" and line.attack not in _NULL
        same = [other for other in others if _norm(query, other) == _norm(query, line)]
        for other in same:
            twin = other.attack == line.attack and other.attack_params == line.attack_params
            steps, theirs = self._steps(line), self._steps(other)
            check: Callable[[X, X], Finding] | None = None
            if twin and (line.gradient, other.gradient) == ("feedback", "exact"):
                check = masking.exact_gradient_breaks
            elif twin and line.gradient == "feedback" and other.gradient == "transfer":
                check = masking.transfer_stronger
            elif white and other.attack == "fgsm" and steps > 1 and other.gradient == line.gradient:
                check = _turned(masking.one_step_stronger)
            elif white and other.attack == line.attack and other.gradient == line.gradient and theirs > steps:
                check = masking.more_steps_help
            if check is not None:
                yield from self._compared(check, line, other)
        if white:
            yield from self._black_box(line, same)
            yield from self._noise(line, [other for other in same if other.attack == "noise"])
        for clean in others:
            pair = query.pair(line, clean, 0.0) if clean.attack == "none" else None
            if pair is not None:
                yield Found(finding=masking.random_forward(*pair), epsilon=0.0)

    def _alone(self, line: Line, x: dict[float, X]) -> Iterator[Found]:
        index = self.query.index
        for epsilon, outcomes in x.items():
            if epsilon >= masking.GREY:
                chance = float(index.numbers("chance")[line.start])
                yield Found(finding=masking.grey_limit(outcomes, chance), epsilon=epsilon)
        shapes = {outcomes.shape for outcomes in x.values()}
        if len(x) > 1 and len(shapes) == 1:
            epsilons = sorted(x)
            for lower, upper in itertools.pairwise(epsilons):
                yield Found(finding=masking.not_monotone([x[lower], x[upper]]), epsilon=upper)
        for row in line.rows:
            steps, size = index.value("steps", row), index.value("step_size", row)
            if isinstance(steps, int) and isinstance(size, float) and steps > 0 and not math.isnan(size):
                epsilon = float(index.epsilon[row])
                if row == line.start or epsilon != index.epsilon[row - 1]:
                    yield Found(finding=masking.short_reach(steps, size, epsilon), epsilon=epsilon)

    def _compared(self, check: Callable[[X, X], Finding], line: Line, other: Line) -> Iterator[Found]:
        for epsilon in self._shared(line, other):
            pair = self.query.pair(line, other, epsilon)
            if pair is not None:
                yield Found(finding=check(*pair), epsilon=epsilon)

    def _black_box(self, line: Line, others: Sequence[Line]) -> Iterator[Found]:
        """Against the lowest outcome of each image over the white-box lines, of which `line` is one."""
        black = [other for other in others if other.gradient == "none" and other.attack not in _NULL]
        white = [line, *(other for other in others if other.gradient != "none" and other.attack not in _NULL)]
        for other in black:
            for epsilon in self._shared(line, other):
                pairs = [self.query.pair(known, other, epsilon) for known in white]
                there = [pair for pair in pairs if pair is not None]
                if there and len({pair[0].shape for pair in there}) == 1:
                    lowest = np.min([pair[0] for pair in there], axis=0)
                    yield Found(finding=masking.black_box_stronger(lowest, there[0][1]), epsilon=epsilon)

    def _noise(self, line: Line, others: Sequence[Line]) -> Iterator[Found]:
        for other in others:
            pairs = [self.query.pair(line, other, epsilon) for epsilon in self._shared(line, other)]
            there = [pair for pair in pairs if pair is not None]
            if there:
                yield Found(finding=masking.noise_as_strong([a for a, _ in there], [b for _, b in there]))

    def _shared(self, line: Line, other: Line) -> list[float]:
        """The epsilons above 0 that both have."""
        return sorted({e for e in self.query.epsilons(line) if e > 0} & set(self.query.epsilons(other)))

    def _steps(self, line: Line) -> int:
        steps = self.query.index.value("steps", line.start)
        return steps if isinstance(steps, int) else 0


def _norm(query: Query, line: Line) -> object:
    return query.index.value("norm", line.start)


def _turned(check: Callable[[X, X], Finding]) -> Callable[[X, X], Finding]:
    return lambda ours, theirs: check(theirs, ours)

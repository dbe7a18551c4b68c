"""The checks of `signsym_core.masking` on the lines of a store: which apply, and what they find at which epsilon."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from orchestrator.explorer.curve import Curve
from orchestrator.explorer.line import Line
from orchestrator.explorer.pairing import matrix, paired
from orchestrator.explorer.query import Query
from signsym_core import masking
from signsym_core.evidence import NULL
from signsym_core.masking import Finding

X = NDArray[np.floating] | NDArray[np.uint8]

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
    "zero_gradient": "needs outcomes that say whether an image has a gradient, as fgsm's do",
    "short_reach": "needs an attack of gradient steps",
    "random_forward": "needs the clean performance and the attack at ε = 0",
    "small_n": "",
}


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
        self._lock = threading.Lock()

    def of(self, line: Line) -> dict[str, list[Found]]:
        """By check, what it found on the line; a check that cannot be made is not in it."""
        self._prepare([line])
        return self._found[line.number]

    def rings(self, curves: Sequence[Curve]) -> dict[tuple[int, float], tuple[str, ...]]:
        """The flags raised at each point, but `small_n`, which a panel's title tells."""
        rings: dict[tuple[int, float], tuple[str, ...]] = {}
        self._prepare([self.query.index.lines[curve.line] for curve in curves])
        for curve in curves:
            for flag, made in self._found[curve.line].items():
                for found in made:
                    if found.finding.raised and found.epsilon is not None and flag != "small_n":
                        at = (curve.line, found.epsilon)
                        rings[at] = (*rings.get(at, ()), flag)
        return rings

    def _prepare(self, lines: Sequence[Line]) -> None:
        """Check lines, with the outcomes of all that they are compared with read together."""
        with self._lock:
            new = {line.number: line for line in lines if line.number not in self._found}
            models = {line.model: self.query.index.models[line.model] for line in new.values()}
            checked = _Compared(self.query, [line for members in models.values() for line in members])
            for number, line in new.items():
                others = [other for other in models[line.model] if other.number != number]
                found: dict[str, list[Found]] = {}
                for made in _check(checked, line, others):
                    found.setdefault(made.finding.flag, []).append(made)
                self._found[number] = found


class _Compared:
    """The outcomes of some lines at their epsilons, and what an index says of them."""

    def __init__(self, query: Query, lines: Sequence[Line]) -> None:
        self._samples = query.samples(lines)
        self.index = query.index
        self.epsilons = {line.number: query.epsilons(line) for line in lines}
        self._x = self._samples.regular([(line.number, e) for line in lines for e in self.epsilons[line.number]])
        self.norm = {line.number: query.index.value("norm", line.start) for line in lines}

    def x(self, line: Line, epsilon: float) -> X | None:
        """X of a point over the images that its seeds share."""
        if (line.number, epsilon) in self._x:
            return self._x[line.number, epsilon]
        sample = self._samples.of(line, epsilon)
        return None if sample is None else matrix(self._samples.outcomes(sample))

    def pair(self, ours: Line, theirs: Line, epsilon: float) -> tuple[X, X] | None:
        """X of both over the seeds and images that both have; None where they share none."""
        mine, other = self._samples.of(ours, epsilon), self._samples.of(theirs, epsilon)
        if mine is None or other is None:
            return None
        if mine.alike(other):
            return self._x[ours.number, epsilon], self._x[theirs.number, epsilon]
        return paired(self._samples.outcomes(mine), self._samples.outcomes(other))

    def shared(self, line: Line, other: Line) -> list[float]:
        """The epsilons above 0 that both have."""
        return sorted({e for e in self.epsilons[line.number] if e > 0} & set(self.epsilons[other.number]))

    def zeros(self, line: Line) -> NDArray[np.bool_] | None:
        """Whether each clean image has no gradient, of the first epsilon at which all seeds say so."""
        for epsilon in self.epsilons[line.number]:
            sample = self._samples.of(line, epsilon)
            if sample is not None and sample.images >= 0:
                zeros = [outcome.zero for outcome in self._samples.outcomes(sample).values()]
                there = [zero for zero in zeros if zero is not None]
                if len(there) == len(zeros):
                    return np.array(there)
        return None

    def steps(self, line: Line) -> int:
        """Gradient steps of the line's attack."""
        return int(np.nan_to_num(self.index.numbers("steps")[line.start]))


def _check(outcomes: _Compared, line: Line, others: Sequence[Line]) -> Iterator[Found]:
    x = {
        epsilon: found for epsilon in outcomes.epsilons[line.number] if (found := outcomes.x(line, epsilon)) is not None
    }
    if not x:
        return
    seeds, n = next(iter(x.values())).shape
    yield Found(finding=masking.small_n(n, seeds))
    yield from _alone(outcomes, line, x)
    zeros = outcomes.zeros(line)
    if zeros is not None:
        yield Found(finding=masking.zero_gradient(zeros))
    white = line.gradient != "none" and line.attack not in NULL
    same = [other for other in others if outcomes.norm[other.number] == outcomes.norm[line.number]]
    for other in same:
        twin = other.attack == line.attack and other.attack_params == line.attack_params
        steps, theirs = outcomes.steps(line), outcomes.steps(other)
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
            for epsilon in outcomes.shared(line, other):
                pair = outcomes.pair(line, other, epsilon)
                if pair is not None:
                    yield Found(finding=check(*pair), epsilon=epsilon)
    if white:
        yield from _black_box(outcomes, line, same)
        for other in same:
            pairs = [outcomes.pair(line, other, e) for e in outcomes.shared(line, other) if other.attack == "noise"]
            there = [pair for pair in pairs if pair is not None]
            if there:
                yield Found(finding=masking.noise_as_strong([a for a, _ in there], [b for _, b in there]))
    for clean in others:
        pair = outcomes.pair(line, clean, 0.0) if clean.attack == "none" else None
        if pair is not None:
            yield Found(finding=masking.random_forward(*pair), epsilon=0.0)


def _alone(outcomes: _Compared, line: Line, x: Mapping[float, X]) -> Iterator[Found]:
    index = outcomes.index
    for epsilon, found in x.items():
        if epsilon >= masking.GREY:
            yield Found(finding=masking.grey_limit(found, float(index.numbers("chance")[line.start])), epsilon=epsilon)
    if len(x) > 1 and len({found.shape for found in x.values()}) == 1:
        for lower, upper in itertools.pairwise(sorted(x)):
            yield Found(finding=masking.not_monotone([x[lower], x[upper]]), epsilon=upper)
    for row in index.points(line).tolist():
        steps, size = float(index.numbers("steps")[row]), float(index.numbers("step_size")[row])
        if steps > 0 and not math.isnan(size):
            epsilon = float(index.epsilon[row])
            yield Found(finding=masking.short_reach(int(steps), size, epsilon), epsilon=epsilon)


def _black_box(outcomes: _Compared, line: Line, others: Sequence[Line]) -> Iterator[Found]:
    """Against the lowest outcome of each image over the white-box lines, of which `line` is one."""
    black = [other for other in others if other.gradient == "none" and other.attack not in NULL]
    white = [line, *(other for other in others if other.gradient != "none" and other.attack not in NULL)]
    for other in black:
        for epsilon in outcomes.shared(line, other):
            pairs = [outcomes.pair(known, other, epsilon) for known in white]
            there = [pair for pair in pairs if pair is not None]
            if there and len({pair[0].shape for pair in there}) == 1:
                lowest = np.min([pair[0] for pair in there], axis=0)
                yield Found(finding=masking.black_box_stronger(lowest, there[0][1]), epsilon=epsilon)


def _turned(check: Callable[[X, X], Finding]) -> Callable[[X, X], Finding]:
    return lambda ours, theirs: check(theirs, ours)

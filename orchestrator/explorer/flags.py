"""The checks of `signsym_core.masking` on the lines of a store: which apply, and what they find at which epsilon."""

from __future__ import annotations

import dataclasses
import itertools
import math
import threading
from collections.abc import Iterator, Sequence

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

    def of(self, lines: Sequence[Line]) -> list[dict[str, list[Found]]]:
        """For each line, by check, what it found; a check that cannot be made is not in it."""
        self._prepare(lines)
        return [self._found[line.number] for line in lines]

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
        """Check lines together: their outcomes are read once, and comparisons of one shape are made at once."""
        with self._lock:
            new = {line.number: line for line in lines if line.number not in self._found}
            models: dict[tuple[str, ...], list[Line]] = {}
            for line in new.values():
                models.setdefault(line.model, []).append(line)
            models = {model: _related(self.query.index.models[model], mine) for model, mine in models.items()}
            outcomes = _Outcomes(self.query, [line for members in models.values() for line in members])
            made: list[tuple[int, Found]] = []
            asked: dict[tuple[str, tuple[int, ...]], list[tuple[int, float, X, X]]] = {}
            for number, line in new.items():
                for check in _check(outcomes, line, [o for o in models[line.model] if o.number != number]):
                    if isinstance(check, Found):
                        made.append((number, check))
                    else:
                        asked.setdefault((check.flag, check.first.shape), []).append(
                            (number, check.epsilon, check.first, check.second)
                        )
            for (flag, _), pairs in asked.items():
                first, second = (np.stack([pair[side] for pair in pairs]) for side in (2, 3))
                findings = masking.compared(flag, first, second)
                made += [
                    (number, Found(finding=finding, epsilon=epsilon))
                    for (number, epsilon, _, _), finding in zip(pairs, findings, strict=True)
                ]
            for number in new:
                self._found[number] = {}
            for number, found in made:
                self._found[number].setdefault(found.finding.flag, []).append(found)


def _related(members: Sequence[Line], lines: Sequence[Line]) -> list[Line]:
    """Of a model's lines those that any check compares some of them with."""
    if any(line.gradient == "none" and line.attack not in NULL for line in members):
        # A black-box attack is compared with all white-box attacks together.
        return list(members)
    attacks = {line.attack for line in lines} | {"fgsm"}
    return [line for line in members if line.attack in attacks or line.gradient == "none"]


@dataclasses.dataclass(frozen=True, slots=True)
class _Asked:
    """A comparison of two outcomes [seeds, images] that is to be made with others of its kind."""

    flag: str
    epsilon: float
    first: X
    second: X


class _Outcomes:
    """The outcomes of some lines at their epsilons, and what an index says of them."""

    def __init__(self, query: Query, lines: Sequence[Line]) -> None:
        self._samples = query.samples(lines)
        self.index = query.index
        self.epsilons = {line.number: query.epsilons(line) for line in lines}
        self._x = self._samples.regular([(line.number, e) for line in lines for e in self.epsilons[line.number]])
        self.norm = {line.number: query.index.value("norm", line.start) for line in lines}
        steps = query.index.numbers("steps")[[line.start for line in lines]]
        #: Gradient steps of each line's attack.
        self.steps = {line.number: int(n) for line, n in zip(lines, np.nan_to_num(steps), strict=True)}

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


def _check(outcomes: _Outcomes, line: Line, others: Sequence[Line]) -> Iterator[Found | _Asked]:
    points = [(e, found) for e in outcomes.epsilons[line.number] if (found := outcomes.x(line, e)) is not None]
    if not points:
        return
    seeds, n = points[0][1].shape
    yield Found(finding=masking.small_n(n, seeds))
    yield from _alone(outcomes, line, points)
    zeros = outcomes.zeros(line)
    if zeros is not None:
        yield Found(finding=masking.zero_gradient(zeros))
    white = line.gradient != "none" and line.attack not in NULL
    same = [other for other in others if outcomes.norm[other.number] == outcomes.norm[line.number]]
    for other in same:
        flag = _applies(outcomes, line, other, white)
        for epsilon in outcomes.shared(line, other) if flag else ():
            pair = outcomes.pair(line, other, epsilon)
            if pair is not None:
                yield _Asked(flag, epsilon, *pair)
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


def _applies(outcomes: _Outcomes, line: Line, other: Line, white: bool) -> str:
    """The check that compares a line with another one; "" for none."""
    steps, theirs = outcomes.steps[line.number], outcomes.steps[other.number]
    if other.attack == line.attack and other.attack_params == line.attack_params and line.gradient == "feedback":
        if other.gradient == "exact":
            return "exact_gradient_breaks"
        if other.gradient == "transfer":
            return "transfer_stronger"
    if white and other.attack == "fgsm" and steps > 1 and other.gradient == line.gradient:
        return "one_step_stronger"
    if white and other.attack == line.attack and other.gradient == line.gradient and theirs > steps:
        return "more_steps_help"
    return ""


def _alone(outcomes: _Outcomes, line: Line, points: Sequence[tuple[float, X]]) -> Iterator[Found | _Asked]:
    index = outcomes.index
    chance, steps, sizes = (index.numbers(name) for name in ("chance", "steps", "step_size"))
    for epsilon, found in points:
        if epsilon >= masking.GREY:
            yield Found(finding=masking.grey_limit(found, float(chance[line.start])), epsilon=epsilon)
    if len({found.shape for _, found in points}) == 1:
        for (_, lower), (epsilon, upper) in itertools.pairwise(points):
            yield _Asked("not_monotone", epsilon, upper, lower)
    for row in index.points(line).tolist():
        if steps[row] > 0 and not math.isnan(sizes[row]):
            epsilon = float(index.epsilon[row])
            finding = masking.short_reach(int(steps[row]), float(sizes[row]), epsilon)
            yield Found(finding=finding, epsilon=epsilon)


def _black_box(outcomes: _Outcomes, line: Line, others: Sequence[Line]) -> Iterator[_Asked]:
    """Against the lowest outcome of each image over the white-box lines, of which `line` is one."""
    black = [other for other in others if other.gradient == "none" and other.attack not in NULL]
    white = [line, *(other for other in others if other.gradient != "none" and other.attack not in NULL)]
    for other in black:
        for epsilon in outcomes.shared(line, other):
            pairs = [outcomes.pair(known, other, epsilon) for known in white]
            there = [pair for pair in pairs if pair is not None]
            if there and len({pair[0].shape for pair in there}) == 1:
                lowest = np.min([pair[0] for pair in there], axis=0)
                yield _Asked("black_box_stronger", epsilon, lowest, there[0][1])

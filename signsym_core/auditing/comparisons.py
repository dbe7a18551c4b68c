"""The runs of a model that each check is made on: findings, or pairs of outcomes to compare.

A check is made at every ε for which its runs exist; two attacks are compared only below ε = 0.5.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from itertools import pairwise, product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from signsym_core.auditing import masking
from signsym_core.auditing.evidence import Array, Evidence, Run, paired
from signsym_core.auditing.finding import Finding


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckFinding:
    """A finding of a check, with its ε and run."""

    finding: Finding
    #: None where the finding does not depend on ε.
    epsilon: float | None = None
    #: The run whose score is in question; None where the finding is about the model itself.
    run: Run | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pair:
    """Two outcomes that a check compares; pairs of one shape are compared in one batch."""

    flag: str
    epsilon: float
    run: Run
    claimed: NDArray[Any]
    stronger: NDArray[Any]


def exact_gradient(evidence: Evidence) -> Iterator[Pair]:
    """One attack under the model's own gradient and under the exact one."""
    exact = {(run.attack, run.parameters, run.epsilon): run for run in evidence.of(gradient="exact")}
    pairs = [
        (feedback_run, exact_run)
        for feedback_run in evidence.of(gradient="feedback", below=masking.GREY)
        if (exact_run := exact.get((feedback_run.attack, feedback_run.parameters, feedback_run.epsilon))) is not None
    ]
    # One step is a weak attack under either gradient: it counts only where nothing else was run.
    iterated = [(feedback_run, exact_run) for feedback_run, exact_run in pairs if feedback_run.steps != 1]
    for feedback_run, exact_run in iterated or pairs:
        yield from _pair("exact_gradient_breaks", feedback_run, exact_run)


def noise_alone(evidence: Evidence) -> Iterator[Pair]:
    """The strongest attack, and noise."""
    for noise in _noises(evidence):
        attack = evidence.strongest(evidence.result, noise.epsilon)
        if attack is not None:
            yield from _pair("noise_breaks", attack, noise)


def no_better_than_noise(evidence: Evidence) -> Iterator[CheckFinding]:
    """Each attack at all its ε, and noise."""
    noises = {noise.epsilon: noise for noise in _noises(evidence)}
    for runs in _by_attack(evidence).values():
        pairs = [(run, both) for run in runs if (both := _both(run, noises.get(run.epsilon))) is not None]
        if pairs:
            attack, noise = ([both[side] for _, both in pairs] for side in (0, 1))
            yield CheckFinding(finding=masking.noise_as_strong(attack, noise), run=pairs[-1][0])


def one_step(evidence: Evidence) -> Iterator[Pair]:
    """The attacks of most steps, and one step."""
    # Beyond ε = 0.5 one step moves every image to a corner of the cube, which iterated attacks do not reach.
    for epsilon in _epsilons(evidence, below=masking.GREY):
        runs = evidence.runs_at(evidence.result, epsilon)
        most = max(run.steps for run in runs)
        for many, one in product((run for run in runs if run.steps == most > 1), runs):
            if one.steps == 1:
                yield from _pair("one_step_stronger", many, one)


def more_steps(evidence: Evidence) -> Iterator[Pair]:
    """The strongest attack with about twice its steps: whether it has converged."""
    for epsilon in _epsilons(evidence, below=masking.GREY):
        best = evidence.strongest(evidence.result, epsilon)
        assert best is not None, "an ε of these runs has a run"
        same = (run for run in evidence.runs_at(evidence.result, epsilon) if run.attack == best.attack)
        runs = sorted(same, key=lambda run: run.steps)
        if len(runs) > 1 and 1 < runs[-2].steps < runs[-1].steps <= 2.5 * runs[-2].steps:
            yield from _pair("more_steps_help", runs[-2], runs[-1])


def reach(evidence: Evidence) -> Iterator[CheckFinding]:
    """How far the steps of each attack reach."""
    for run in evidence.of(gradient=evidence.result):
        if run.steps:
            finding = masking.short_reach(run.steps, run.step_size, run.epsilon)
            yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def border(evidence: Evidence) -> Iterator[CheckFinding]:
    """How near the border of the ball the images moved."""
    for run in evidence.of(gradient=evidence.result, below=masking.GREY):
        if run.moved is not None and run.steps:
            finding = masking.short_of_border(run.outcomes, run.moved, run.epsilon)
            yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def monotone(evidence: Evidence) -> Iterator[Pair]:
    """Each attack at two neighbouring ε."""
    for runs in _by_attack(evidence).values():
        # A single step may overshoot, so that its score really rises with ε.
        for smaller, larger in pairwise(run for run in runs if run.steps != 1):
            yield from _pair("not_monotone", larger, smaller)


def grey(evidence: Evidence) -> Iterator[CheckFinding]:
    """The strongest attack from the ε on at which every image may be grey."""
    for epsilon in _epsilons(evidence):
        run = evidence.strongest(evidence.result, epsilon)
        if run is not None and epsilon >= masking.GREY:
            yield CheckFinding(finding=masking.grey_limit(run.outcomes, evidence.chance), epsilon=epsilon, run=run)


def unbounded(evidence: Evidence) -> Iterator[CheckFinding]:
    """The strongest attack at ε = 1."""
    run = evidence.strongest(evidence.result, 1.0)
    if run is not None:
        yield CheckFinding(finding=masking.unbounded_survives(run.outcomes), epsilon=1.0, run=run)


def sample_size(evidence: Evidence) -> Iterator[CheckFinding]:
    """The largest sample of an attack."""
    runs = evidence.of(gradient=evidence.result) or evidence.of()
    if runs:
        seeds, n = max((run.outcomes for run in runs), key=lambda outcomes: outcomes.size).shape
        yield CheckFinding(finding=masking.small_n(n, seeds))


def zero_gradient(evidence: Evidence) -> Iterator[CheckFinding]:
    """Each attack that says which images have no gradient."""
    for gradient in dict.fromkeys(("feedback", evidence.result)):
        # The gradient at the clean image is the same at every ε.
        runs = {
            (run.attack, run.parameters): run for run in evidence.of(gradient=gradient) if run.no_gradient is not None
        }
        for run in runs.values():
            assert run.no_gradient is not None
            yield CheckFinding(finding=masking.zero_gradient(run.no_gradient), run=run)


def nonfinite_gradient(evidence: Evidence) -> Iterator[CheckFinding]:
    """Each run that says where its gradient was not finite."""
    for gradient in dict.fromkeys(("feedback", evidence.result)):
        for run in evidence.of(gradient=gradient):
            if run.nonfinite is not None:
                seeds, n = run.outcomes.shape
                finding = masking.nonfinite_gradient(run.nonfinite, n, seeds)
                yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def random_forward(evidence: Evidence) -> Iterator[CheckFinding]:
    """Runs at ε = 0, and the clean performance."""
    clean = next((run for run in evidence.runs if run.attack == "none"), None)
    for run in evidence.runs:
        if run.epsilon == 0 and run.attack != "none" and (both := _both(run, clean)) is not None:
            yield CheckFinding(finding=masking.random_forward(*both), epsilon=0.0, run=run)


def beside_white_box(gradient: str, flag: str) -> Callable[[Evidence], Iterator[Pair]]:
    """The check on the lowest outcome of each image under the model's own gradient, and each run of `gradient`."""

    def ask(evidence: Evidence) -> Iterator[Pair]:
        lowest: dict[tuple[float, tuple[int, ...], int], tuple[Run, NDArray[Any]]] = {}
        for other in evidence.of(gradient=gradient, below=masking.GREY):
            white = evidence.runs_at("feedback", other.epsilon)
            # A run with fewer seeds would restrict the comparison to its seeds.
            white = [run for run in white if set(run.seeds) >= set(other.seeds)] or white
            outcomes = paired(other, *white) if white else None
            if outcomes is None:
                continue
            # Runs of one list of images and seeds have one lowest outcome, however many they are compared with.
            key = (other.epsilon, other.seeds, id(other.images))
            if key not in lowest:
                lowest[key] = min(white, key=lambda run: run.score), np.minimum.reduce(outcomes[1:])
            strongest, claimed = lowest[key]
            yield Pair(flag=flag, epsilon=other.epsilon, run=strongest, claimed=claimed, stronger=outcomes[0])

    return ask


def probed(check: Callable[[Array], Finding], column: str) -> Callable[[Evidence], Iterator[CheckFinding]]:
    """The check of one column of the probes, over all seeds."""

    def ask(evidence: Evidence) -> Iterator[CheckFinding]:
        columns = [getattr(probe, column) for probe in evidence.probes]
        if columns and all(values is not None for values in columns):
            # Each seed's model may have been probed at another number of images.
            fewest = min(len(values) for values in columns)
            yield CheckFinding(finding=check(np.array([values[:fewest] for values in columns])))

    return ask


def _epsilons(evidence: Evidence, below: float = 2.0) -> list[float]:
    """The ε of the runs whose score is the result."""
    return sorted({run.epsilon for run in evidence.of(gradient=evidence.result, below=below)})


def _by_attack(evidence: Evidence) -> dict[tuple[str, str], list[Run]]:
    """The runs whose score is the result by attack, each at ascending ε."""
    attacks: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(evidence.of(gradient=evidence.result), key=lambda run: run.epsilon):
        attacks.setdefault((run.attack, run.parameters), []).append(run)
    return attacks


def _noises(evidence: Evidence) -> list[Run]:
    return [run for run in evidence.runs if run.attack == "noise" and run.epsilon > 0 and run.norm == "linf"]


def _both(run: Run, other: Run | None) -> list[NDArray[Any]] | None:
    return None if other is None else paired(run, other)


def _pair(flag: str, claimed: Run, stronger: Run) -> Iterator[Pair]:
    outcomes = paired(claimed, stronger)
    if outcomes is not None:
        yield Pair(flag=flag, epsilon=claimed.epsilon, run=claimed, claimed=outcomes[0], stronger=outcomes[1])

"""The pairs of outcomes that checks compare: those of one attack and of a stronger one.

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
from signsym_core.auditing.evidence import Evidence, Run, paired


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Pair:
    """Two outcomes that a check compares; pairs of one shape are compared in one batch."""

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
        yield from _pair(feedback_run, exact_run)


def noise_alone(evidence: Evidence) -> Iterator[Pair]:
    """The strongest attack, and noise."""
    for noise in noises(evidence):
        attack = evidence.strongest(evidence.result, noise.epsilon)
        if attack is not None:
            yield from _pair(attack, noise)


def one_step(evidence: Evidence) -> Iterator[Pair]:
    """The attacks of most steps, and one step."""
    # Beyond ε = 0.5 one step moves every image to a corner of the cube, which iterated attacks do not reach.
    for epsilon in epsilons_of(evidence, below=masking.GREY):
        runs = evidence.runs_at(evidence.result, epsilon)
        most = max(run.steps for run in runs)
        for many, one in product((run for run in runs if run.steps == most > 1), runs):
            if one.steps == 1:
                yield from _pair(many, one)


def more_steps(evidence: Evidence) -> Iterator[Pair]:
    """The strongest attack with about twice its steps: whether it has converged."""
    for epsilon in epsilons_of(evidence, below=masking.GREY):
        best = evidence.strongest(evidence.result, epsilon)
        assert best is not None, "an ε of these runs has a run"
        same = (run for run in evidence.runs_at(evidence.result, epsilon) if run.attack == best.attack)
        runs = sorted(same, key=lambda run: run.steps)
        if len(runs) > 1 and 1 < runs[-2].steps < runs[-1].steps <= 2.5 * runs[-2].steps:
            yield from _pair(runs[-2], runs[-1])


def monotone(evidence: Evidence) -> Iterator[Pair]:
    """Each attack at two neighbouring ε."""
    for runs in by_attack(evidence).values():
        # A single step may overshoot, so that its score really rises with ε.
        for smaller, larger in pairwise(run for run in runs if run.steps != 1):
            yield from _pair(larger, smaller)


def beside_white_box(gradient: str) -> Callable[[Evidence], Iterator[Pair]]:
    """A check on the lowest outcome of each image under the model's own gradient, and each run of `gradient`."""

    def ask(evidence: Evidence) -> Iterator[Pair]:
        lowest: dict[tuple[float, tuple[int, ...], int], NDArray[Any]] = {}
        for other in evidence.of(gradient=gradient, below=masking.GREY):
            white = evidence.runs_at("feedback", other.epsilon)
            # A run with fewer seeds would restrict the comparison to its seeds.
            white = [run for run in white if set(run.seeds) >= set(other.seeds)] or white
            strongest = min(white, key=lambda run: run.score, default=None)
            if strongest is None or not strongest.checked or (outcomes := paired(other, *white)) is None:
                continue
            # Runs of one list of images and seeds have one lowest outcome, however many they are compared with.
            key = (other.epsilon, other.seeds, id(other.images))
            if key not in lowest:
                lowest[key] = np.minimum.reduce(outcomes[1:])
            yield Pair(epsilon=other.epsilon, run=strongest, claimed=lowest[key], stronger=outcomes[0])

    return ask


def epsilons_of(evidence: Evidence, below: float = 2.0) -> list[float]:
    """The ε of the runs whose score is the result."""
    return sorted({run.epsilon for run in evidence.of(gradient=evidence.result, below=below)})


def by_attack(evidence: Evidence) -> dict[tuple[str, str], list[Run]]:
    """The runs whose score is the result by attack, each at ascending ε."""
    attacks: dict[tuple[str, str], list[Run]] = {}
    for run in sorted(evidence.of(gradient=evidence.result), key=lambda run: run.epsilon):
        attacks.setdefault((run.attack, run.parameters), []).append(run)
    return attacks


def noises(evidence: Evidence) -> list[Run]:
    """The runs of noise in an L∞ ball."""
    return [run for run in evidence.runs if run.attack == "noise" and run.epsilon > 0 and run.norm == "linf"]


def both_of(run: Run, other: Run | None) -> list[NDArray[Any]] | None:
    """The outcomes of both on the same images and seeds; None where one is missing or none are the same."""
    return None if other is None else paired(run, other)


def _pair(claimed: Run, stronger: Run) -> Iterator[Pair]:
    outcomes = paired(claimed, stronger) if claimed.checked else None
    if outcomes is not None:
        yield Pair(epsilon=claimed.epsilon, run=claimed, claimed=outcomes[0], stronger=outcomes[1])

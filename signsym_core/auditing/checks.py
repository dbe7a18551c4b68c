"""Which check applies to which runs of a model, and what a raised check means.

A check is made at every ε for which its runs exist; two attacks are compared only below ε = 0.5. The check functions
are in `masking` and `gradientchecks` beside this module; the order is that of tables. Audits, pages and reports all use
this module, so that they agree. Source of the list: Carlini et al. 2019 (1902.06705), plus the comparison of two
gradients, which only a model with a separate backward pass allows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise, product
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from signsym_core.auditing import gradientchecks, masking
from signsym_core.auditing.evidence import Array, Evidence, Run, paired
from signsym_core.auditing.finding import Finding

#: The meaning of a raised check: "masked", an attack breaks more than the reported one; "sign", the gradient may be
#: wrong, which an attack must confirm; "weak", the attack was too weak; "told", information that decides nothing.
Level = Literal["masked", "sign", "weak", "told"]


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One check: `ask` yields its findings, or the pairs of outcomes to compare; nothing where its runs are missing."""

    id: str
    flag: str
    level: Level
    #: Whether a verdict needs it.
    minimal: bool
    #: The runs that it needs, in words.
    needs: str
    ask: Callable[[Evidence], Iterator[CheckFinding | Pair]]

    def look(self, evidence: Evidence) -> list[CheckFinding]:
        """The findings of this check."""
        return findings(evidence, [self])[self.id]


def findings(evidence: Evidence, checks: Sequence[Check] | None = None) -> dict[str, list[CheckFinding]]:
    """The findings of each check on a model, by the check's id, in the order of tables; by default of all checks.

    Pairs of one shape are compared in one batch.
    """
    by_check: dict[str, list[CheckFinding]] = {}
    pairs: dict[tuple[str, tuple[int, ...]], list[tuple[list[CheckFinding], Pair]]] = {}
    for check in CHECKS if checks is None else checks:
        by_check[check.id] = []
        for result in check.ask(evidence):
            if isinstance(result, CheckFinding):
                by_check[check.id].append(result)
            else:
                pairs.setdefault((result.flag, result.claimed.shape), []).append((by_check[check.id], result))
    for (flag, _), members in pairs.items():
        claimed, stronger = (
            np.stack([pair.claimed for _, pair in members]),
            np.stack([pair.stronger for _, pair in members]),
        )
        compared = masking.compared(flag, claimed, stronger)
        for (into, pair), finding in zip(members, compared, strict=True):
            into.append(CheckFinding(finding=finding, epsilon=pair.epsilon, run=pair.run))
    return by_check


def _exact(evidence: Evidence) -> Iterator[Pair]:
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


def _noise(evidence: Evidence) -> Iterator[Pair]:
    for noise in _noises(evidence):
        attack = evidence.strongest(evidence.result, noise.epsilon)
        if attack is not None:
            yield from _pair("noise_breaks", attack, noise)


def _no_better_than_noise(evidence: Evidence) -> Iterator[CheckFinding]:
    noises = {noise.epsilon: noise for noise in _noises(evidence)}
    for runs in _by_attack(evidence).values():
        pairs = [(run, both) for run in runs if (both := _both(run, noises.get(run.epsilon))) is not None]
        if pairs:
            attack, noise = ([both[side] for _, both in pairs] for side in (0, 1))
            yield CheckFinding(finding=masking.noise_as_strong(attack, noise), run=pairs[-1][0])


def _one_step(evidence: Evidence) -> Iterator[Pair]:
    # Beyond ε = 0.5 one step moves every image to a corner of the cube, which iterated attacks do not reach.
    for epsilon in _epsilons(evidence, below=masking.GREY):
        runs = evidence.runs_at(evidence.result, epsilon)
        most = max(run.steps for run in runs)
        for many, one in product((run for run in runs if run.steps == most > 1), runs):
            if one.steps == 1:
                yield from _pair("one_step_stronger", many, one)


def _more_steps(evidence: Evidence) -> Iterator[Pair]:
    """The strongest attack with about twice its steps: whether it has converged."""
    for epsilon in _epsilons(evidence, below=masking.GREY):
        best = evidence.strongest(evidence.result, epsilon)
        assert best is not None, "an ε of these runs has a run"
        same = (run for run in evidence.runs_at(evidence.result, epsilon) if run.attack == best.attack)
        runs = sorted(same, key=lambda run: run.steps)
        if len(runs) > 1 and 1 < runs[-2].steps < runs[-1].steps <= 2.5 * runs[-2].steps:
            yield from _pair("more_steps_help", runs[-2], runs[-1])


def _reach(evidence: Evidence) -> Iterator[CheckFinding]:
    for run in evidence.of(gradient=evidence.result):
        if run.steps:
            finding = masking.short_reach(run.steps, run.step_size, run.epsilon)
            yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def _border(evidence: Evidence) -> Iterator[CheckFinding]:
    for run in evidence.of(gradient=evidence.result, below=masking.GREY):
        if run.moved is not None and run.steps:
            finding = masking.short_of_border(run.outcomes, run.moved, run.epsilon)
            yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def _monotone(evidence: Evidence) -> Iterator[Pair]:
    for runs in _by_attack(evidence).values():
        # A single step may overshoot, so that its score really rises with ε.
        for smaller, larger in pairwise(run for run in runs if run.steps != 1):
            yield from _pair("not_monotone", larger, smaller)


def _grey(evidence: Evidence) -> Iterator[CheckFinding]:
    for epsilon in _epsilons(evidence):
        run = evidence.strongest(evidence.result, epsilon)
        if run is not None and epsilon >= masking.GREY:
            yield CheckFinding(finding=masking.grey_limit(run.outcomes, evidence.chance), epsilon=epsilon, run=run)


def _unbounded(evidence: Evidence) -> Iterator[CheckFinding]:
    run = evidence.strongest(evidence.result, 1.0)
    if run is not None:
        yield CheckFinding(finding=masking.unbounded_survives(run.outcomes), epsilon=1.0, run=run)


def _size(evidence: Evidence) -> Iterator[CheckFinding]:
    runs = evidence.of(gradient=evidence.result) or evidence.of()
    if runs:
        seeds, n = max((run.outcomes for run in runs), key=lambda outcomes: outcomes.size).shape
        yield CheckFinding(finding=masking.small_n(n, seeds))


def _zero(evidence: Evidence) -> Iterator[CheckFinding]:
    for gradient in dict.fromkeys(("feedback", evidence.result)):
        # The gradient at the clean image is the same at every ε.
        runs = {
            (run.attack, run.parameters): run for run in evidence.of(gradient=gradient) if run.no_gradient is not None
        }
        for run in runs.values():
            assert run.no_gradient is not None
            yield CheckFinding(finding=masking.zero_gradient(run.no_gradient), run=run)


def _nonfinite(evidence: Evidence) -> Iterator[CheckFinding]:
    for gradient in dict.fromkeys(("feedback", evidence.result)):
        for run in evidence.of(gradient=gradient):
            if run.nonfinite is not None:
                seeds, n = run.outcomes.shape
                finding = masking.nonfinite_gradient(run.nonfinite, n, seeds)
                yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def _random(evidence: Evidence) -> Iterator[CheckFinding]:
    clean = next((run for run in evidence.runs if run.attack == "none"), None)
    for run in evidence.runs:
        if run.epsilon == 0 and run.attack != "none" and (both := _both(run, clean)) is not None:
            yield CheckFinding(finding=masking.random_forward(*both), epsilon=0.0, run=run)


def _beside_white_box(gradient: str, flag: str) -> Callable[[Evidence], Iterator[Pair]]:
    """The check on the lowest outcome of each image under the model's own gradient, and each run of `gradient`."""

    def ask(evidence: Evidence) -> Iterator[Pair]:
        lowest: dict[tuple[float, tuple[int, ...], int], NDArray[Any]] = {}
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
                lowest[key] = np.minimum.reduce(outcomes[1:])
            strongest = min(white, key=lambda run: run.score)
            yield Pair(flag=flag, epsilon=other.epsilon, run=strongest, claimed=lowest[key], stronger=outcomes[0])

    return ask


def _probed(check: Callable[[Array], Finding], column: str) -> Callable[[Evidence], Iterator[CheckFinding]]:
    """The check of one column of the probes, over all seeds."""

    def ask(evidence: Evidence) -> Iterator[CheckFinding]:
        columns = [getattr(probe, column) for probe in evidence.probes]
        if columns and all(values is not None for values in columns):
            # Each seed's model may have been probed at another number of images.
            fewest = min(len(values) for values in columns)
            yield CheckFinding(finding=check(np.array([values[:fewest] for values in columns])))

    return ask


#: What checks of the model itself need, which no attack supplies.
MODEL = "the model itself at some images"

_TRANSFER = "an attack with the gradients feedback and transfer"
_BLACK_BOX = "a black-box attack at the ε of one with the gradient feedback"
_EOT = "an attack with the gradients feedback and eot"

#: id, flag, level, whether a verdict needs it, how it is made, what it needs.
_TABLE: tuple[tuple[str, str, Level, bool, Callable[[Evidence], Iterator[CheckFinding | Pair]], str], ...] = (
    ("G1", "exact_gradient_breaks", "masked", True, _exact, "an attack with the gradients feedback and exact"),
    ("G2", "wrong_gradient", "sign", True, _probed(gradientchecks.wrong_gradient, "rho"), MODEL),
    ("G2b", "wrong_direction", "sign", True, _probed(gradientchecks.wrong_direction, "direction"), MODEL),
    ("G3", "inefficient_gradient", "sign", False, _probed(gradientchecks.inefficient_gradient, "efficiency"), MODEL),
    ("G4", "broken_gradient", "sign", False, _probed(gradientchecks.broken_gradient, "broken"), MODEL),
    ("G4b", "zero_gradient", "sign", False, _zero, "outcomes that say whether an image has a gradient, as fgsm's do"),
    ("G4c", "nonfinite_gradient", "sign", False, _nonfinite, "outcomes that say where a gradient was not finite"),
    ("G5", "random_gradient", "sign", True, _probed(gradientchecks.random_gradient, "repeat"), MODEL),
    ("G5b", "random_outputs", "sign", False, _probed(gradientchecks.random_outputs, "unsteady"), MODEL),
    ("G5c", "random_forward", "sign", False, _random, "the clean performance and an attack at ε = 0"),
    ("T1", "transfer_wins", "masked", True, _beside_white_box("transfer", "transfer_wins"), _TRANSFER),
    ("T1b", "transfer_stronger", "weak", True, _beside_white_box("transfer", "transfer_stronger"), _TRANSFER),
    ("B1", "black_box_wins", "masked", False, _beside_white_box("none", "black_box_wins"), _BLACK_BOX),
    ("B1b", "black_box_stronger", "weak", False, _beside_white_box("none", "black_box_stronger"), _BLACK_BOX),
    ("E1", "eot_wins", "masked", False, _beside_white_box("eot", "eot_wins"), _EOT),
    ("B2", "noise_breaks", "weak", False, _noise, "the attack noise"),
    ("B2b", "noise_as_strong", "told", False, _no_better_than_noise, "the attack noise at the ε of another"),
    ("S1", "one_step_stronger", "weak", True, _one_step, "a one-step and an iterated attack at one ε"),
    ("S2", "short_reach", "weak", True, _reach, "an attack of gradient steps"),
    ("S2b", "short_of_border", "weak", False, _border, "an attack of gradient steps, and each image's change"),
    ("S3", "more_steps_help", "weak", False, _more_steps, "one attack with two numbers of steps"),
    ("S5", "not_monotone", "weak", False, _monotone, "one attack at two ε"),
    ("U1", "grey_limit", "weak", True, _grey, "an attack at ε = 0.5"),
    ("U2", "unbounded_survives", "weak", False, _unbounded, "an attack at ε = 1"),
    ("R1", "small_n", "told", True, _size, "an attack"),
)
#: Every check, in the order of tables.
CHECKS: tuple[Check, ...] = tuple(
    Check(id=id, flag=flag, level=level, minimal=minimal, ask=ask, needs=needs)
    for id, flag, level, minimal, ask, needs in _TABLE
)


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

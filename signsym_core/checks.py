"""Which check is made on which runs of a model, and what it means when it is raised.

A check is made wherever its runs are there, at every ε; two attacks are compared below ε = 0.5 only. The checks
themselves are in `signsym_core.masking` and `gradientchecks`; the order is that of tables. Source of the list: Carlini
et al. 2019 (1902.06705), with the comparison of two gradients that only a backward pass of its own allows.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Iterator
from typing import Literal

import numpy as np

from signsym_core import gradientchecks, masking
from signsym_core.evidence import Array, Evidence, Run, paired
from signsym_core.finding import Finding

#: What a raised check says: the gradient lies; the attack was too weak to tell; the numbers are few.
Level = Literal["masked", "weak", "few"]
#: A finding, and at which ε; None where it is about no ε.
Found = tuple[float | None, Finding]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Check:
    """One check: `look` makes it on all runs it applies to, and finds nothing where its runs are missing."""

    id: str
    flag: str
    level: Level
    #: Whether a verdict needs it.
    minimal: bool
    #: What it needs, in words.
    needs: str
    look: Callable[[Evidence], Iterator[Found]]


def _exact(evidence: Evidence) -> Iterator[Found]:
    pairs = [
        (own, exact)
        for own, exact in itertools.product(
            evidence.of(gradient="feedback", below=masking.GREY), evidence.of(gradient="exact", below=masking.GREY)
        )
        if _same(own, exact) and own.epsilon == exact.epsilon
    ]
    # One step is a weak attack under either gradient: it counts only where nothing else was run.
    iterated = [(own, exact) for own, exact in pairs if own.steps != 1]
    for own, exact in iterated or pairs:
        yield from _pair(masking.exact_gradient_breaks, own, exact)


def _noise(evidence: Evidence) -> Iterator[Found]:
    for noise in evidence.runs:
        attack = evidence.strongest(evidence.result, noise.epsilon) if noise.attack == "noise" else None
        if attack is not None:
            yield from _pair(masking.noise_breaks, attack, noise)


def _one_step(evidence: Evidence) -> Iterator[Found]:
    # Beyond ε = 0.5 one step leaves every image at a corner of the cube, which no iterated attack looks at.
    runs = evidence.of(gradient=evidence.result, below=masking.GREY)
    for one, many in itertools.product(runs, runs):
        if one.epsilon == many.epsilon and one.steps == 1 < many.steps and many.steps == _most(runs, many):
            yield from _pair(masking.one_step_stronger, one, many)


def _more_steps(evidence: Evidence) -> Iterator[Found]:
    """About twice the steps, of the attack that keeps least: whether that one has gone as far as it goes."""
    for epsilon in sorted({run.epsilon for run in evidence.of(gradient=evidence.result, below=masking.GREY)}):
        best = evidence.strongest(evidence.result, epsilon)
        assert best is not None
        runs = [run for run in evidence.of(gradient=evidence.result) if run.epsilon == epsilon]
        runs = sorted((run for run in runs if run.attack == best.attack), key=lambda run: run.steps)
        if len(runs) > 1 and 1 < runs[-2].steps < runs[-1].steps <= 2.5 * runs[-2].steps:
            yield from _pair(masking.more_steps_help, runs[-2], runs[-1])


def _reach(evidence: Evidence) -> Iterator[Found]:
    for run in evidence.of(gradient=evidence.result):
        if run.steps:
            yield run.epsilon, masking.short_reach(run.steps, run.step_size, run.epsilon)


def _border(evidence: Evidence) -> Iterator[Found]:
    for run in evidence.of(gradient=evidence.result, below=masking.GREY):
        if run.linf is not None and run.steps:
            yield run.epsilon, masking.short_of_border(run.outcomes, run.linf, run.epsilon)


def _monotone(evidence: Evidence) -> Iterator[Found]:
    # One step may overshoot: its score may rise in truth.
    runs = [run for run in evidence.of(gradient=evidence.result) if run.steps != 1]
    for smaller, larger in itertools.product(runs, runs):
        if not _same(smaller, larger) or smaller.epsilon >= larger.epsilon:
            continue
        between = [run for run in runs if smaller.epsilon < run.epsilon < larger.epsilon and _same(run, larger)]
        found = None if between else paired(smaller, larger)
        if found is not None:
            yield larger.epsilon, masking.not_monotone(found)


def _grey(evidence: Evidence) -> Iterator[Found]:
    for epsilon in sorted({run.epsilon for run in evidence.of() if run.epsilon >= masking.GREY}):
        run = evidence.strongest(evidence.result, epsilon)
        if run is not None:
            yield epsilon, masking.grey_limit(run.outcomes, evidence.chance)


def _unbounded(evidence: Evidence) -> Iterator[Found]:
    run = evidence.strongest(evidence.result, 1.0)
    if run is not None:
        yield 1.0, masking.unbounded_survives(run.outcomes)


def _size(evidence: Evidence) -> Iterator[Found]:
    runs = evidence.of(gradient=evidence.result) or evidence.of()
    if runs:
        seeds, n = max((run.outcomes for run in runs), key=lambda outcomes: outcomes.size).shape
        yield None, masking.small_n(n, seeds)


def _beside_white_box(gradient: str, check: Callable[..., Finding]) -> Callable[[Evidence], Iterator[Found]]:
    """The check on the lowest outcome of each image under the model's own gradient, and each run of `gradient`."""

    def look(evidence: Evidence) -> Iterator[Found]:
        for other in evidence.of(gradient=gradient, below=masking.GREY):
            white = [run for run in evidence.of(gradient="feedback") if run.epsilon == other.epsilon]
            # A run of fewer seeds would take the others' away from all.
            white = [run for run in white if set(run.seeds) >= set(other.seeds)] or white
            found = paired(other, *white) if white else None
            if found is not None:
                yield other.epsilon, check(np.min(found[1:], axis=0), found[0])

    return look


def _probed(check: Callable[[Array], Finding], column: str) -> Callable[[Evidence], Iterator[Found]]:
    """The check of one column of the probes, over all seeds."""

    def look(evidence: Evidence) -> Iterator[Found]:
        columns = [getattr(probe, column) for probe in evidence.probes]
        if columns and all(values is not None for values in columns):
            # Each seed's model may have been probed at another number of images.
            fewest = min(len(values) for values in columns)
            yield None, check(np.array([values[:fewest] for values in columns]))

    return look


#: What checks of the model itself need, which no attack supplies.
MODEL = "the model itself at some images"

_TRANSFER = "an attack with the gradients feedback and transfer"
_BLACK_BOX = "a black-box attack at the ε of one with the gradient feedback"

#: id, flag, level, whether a verdict needs it, how it is made, what it needs.
_TABLE: tuple[tuple[str, str, Level, bool, Callable[[Evidence], Iterator[Found]], str], ...] = (
    ("G1", "exact_gradient_breaks", "masked", True, _exact, "an attack with the gradients feedback and exact"),
    ("G2", "wrong_gradient", "masked", True, _probed(gradientchecks.wrong_gradient, "rho"), MODEL),
    ("G2b", "wrong_direction", "masked", True, _probed(gradientchecks.wrong_direction, "direction"), MODEL),
    ("G3", "inefficient_gradient", "masked", False, _probed(gradientchecks.inefficient_gradient, "efficiency"), MODEL),
    ("G4", "broken_gradient", "masked", False, _probed(gradientchecks.broken_gradient, "broken"), MODEL),
    ("G5", "random_gradient", "masked", True, _probed(gradientchecks.random_gradient, "repeat"), MODEL),
    ("G5b", "random_outputs", "masked", False, _probed(gradientchecks.random_outputs, "unsteady"), MODEL),
    ("T1", "transfer_wins", "masked", True, _beside_white_box("transfer", masking.transfer_wins), _TRANSFER),
    ("T1b", "transfer_stronger", "weak", True, _beside_white_box("transfer", masking.transfer_stronger), _TRANSFER),
    ("B1", "black_box_wins", "masked", False, _beside_white_box("none", masking.black_box_wins), _BLACK_BOX),
    ("B1b", "black_box_stronger", "weak", False, _beside_white_box("none", masking.black_box_stronger), _BLACK_BOX),
    ("B2", "noise_breaks", "weak", False, _noise, "the attack noise"),
    ("S1", "one_step_stronger", "weak", True, _one_step, "a one-step and an iterated attack at one ε"),
    ("S2", "short_reach", "weak", True, _reach, "an attack of gradient steps"),
    ("S2b", "short_of_border", "weak", False, _border, "an attack of gradient steps, and each image's change"),
    ("S3", "more_steps_help", "weak", False, _more_steps, "one attack with two numbers of steps"),
    ("S5", "not_monotone", "weak", False, _monotone, "one attack at two ε"),
    ("U1", "grey_limit", "weak", True, _grey, "an attack at ε = 0.5"),
    ("U2", "unbounded_survives", "weak", False, _unbounded, "an attack at ε = 1"),
    ("R1", "small_n", "few", True, _size, "an attack"),
)
#: Every check, in the order of tables.
CHECKS: tuple[Check, ...] = tuple(
    Check(id=id, flag=flag, level=level, minimal=minimal, look=look, needs=needs)
    for id, flag, level, minimal, look, needs in _TABLE
)


def _same(one: Run, other: Run) -> bool:
    return (one.attack, one.parameters) == (other.attack, other.parameters)


def _most(runs: Iterable[Run], like: Run) -> int:
    """The largest number of steps of the runs at that ε."""
    return max(run.steps for run in runs if run.epsilon == like.epsilon)


def _pair(check: Callable[..., Finding], one: Run, other: Run) -> Iterator[Found]:
    found = paired(one, other)
    if found is not None:
        yield one.epsilon, check(*found)

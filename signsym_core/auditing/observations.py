"""The findings of checks that look at single runs, or at the probes, of a model.

A check is made at every ε for which its runs exist.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator

import numpy as np

from signsym_core.auditing import masking
from signsym_core.auditing.comparisons import both_of, by_attack, epsilons_of, noises
from signsym_core.auditing.evidence import Array, Evidence, Run
from signsym_core.auditing.finding import Finding


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckFinding:
    """A finding of a check, with its ε and run."""

    finding: Finding
    #: None where the finding does not depend on ε.
    epsilon: float | None = None
    #: The run whose score is in question; None where the finding is about the model itself.
    run: Run | None = None


def no_better_than_noise(evidence: Evidence) -> Iterator[CheckFinding]:
    """Each attack at all its ε, and noise."""
    by_epsilon = {noise.epsilon: noise for noise in noises(evidence)}
    for runs in by_attack(evidence).values():
        pairs = [(run, both) for run in runs if (both := both_of(run, by_epsilon.get(run.epsilon))) is not None]
        if pairs:
            attack, noise = ([both[side] for _, both in pairs] for side in (0, 1))
            yield CheckFinding(finding=masking.noise_as_strong(attack, noise), run=pairs[-1][0])


def reach(evidence: Evidence) -> Iterator[CheckFinding]:
    """How far the steps of each attack reach."""
    for run in evidence.of(gradient=evidence.result):
        if run.checked and run.steps:
            finding = masking.short_reach(run.steps, run.step_size, run.epsilon)
            yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def border(evidence: Evidence) -> Iterator[CheckFinding]:
    """How near the border of the ball the images moved."""
    for run in evidence.of(gradient=evidence.result, below=masking.GREY):
        if run.checked and run.moved is not None and run.steps:
            finding = masking.short_of_border(run.outcomes, run.moved, run.epsilon)
            yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def grey(evidence: Evidence) -> Iterator[CheckFinding]:
    """The strongest attack from the ε on at which every image may be grey."""
    for epsilon in epsilons_of(evidence):
        run = evidence.strongest(evidence.result, epsilon) if epsilon >= masking.GREY else None
        if run is not None and run.checked:
            yield CheckFinding(finding=masking.grey_limit(run.outcomes, evidence.chance), epsilon=epsilon, run=run)


def unbounded(evidence: Evidence) -> Iterator[CheckFinding]:
    """The strongest attack at ε = 1."""
    run = evidence.strongest(evidence.result, 1.0)
    if run is not None and run.checked:
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
        for run in (run for run in runs.values() if run.checked):
            assert run.no_gradient is not None
            zero = dataclasses.replace(run, outcomes=run.no_gradient)
            # An image that is lost without an attack, as one without any label, has nothing to hide.
            both = both_of(zero, evidence.clean)
            lacking = run.no_gradient if both is None else both[0] & (both[1] > 0)
            yield CheckFinding(finding=masking.zero_gradient(lacking), run=run)


def nonfinite_gradient(evidence: Evidence) -> Iterator[CheckFinding]:
    """Each run that says where its gradient was not finite."""
    for gradient in dict.fromkeys(("feedback", evidence.result)):
        for run in evidence.of(gradient=gradient):
            if run.checked and run.nonfinite is not None:
                seeds, n = run.outcomes.shape
                finding = masking.nonfinite_gradient(run.nonfinite, n, seeds)
                yield CheckFinding(finding=finding, epsilon=run.epsilon, run=run)


def random_forward(evidence: Evidence) -> Iterator[CheckFinding]:
    """Runs at ε = 0, and the clean performance."""
    clean = next((run for run in evidence.runs if run.attack == "none"), None)
    for run in evidence.runs:
        if run.checked and run.epsilon == 0 and run.attack != "none" and (both := both_of(run, clean)) is not None:
            yield CheckFinding(finding=masking.random_forward(*both), epsilon=0.0, run=run)


def probed(check: Callable[[Array], Finding], column: str) -> Callable[[Evidence], Iterator[CheckFinding]]:
    """The check of one column of the probes, over all seeds."""

    def ask(evidence: Evidence) -> Iterator[CheckFinding]:
        columns = [getattr(probe, column) for probe in evidence.probes]
        if columns and all(values is not None for values in columns):
            # Each seed's model may have been probed at another number of images.
            fewest = min(len(values) for values in columns)
            yield CheckFinding(finding=check(np.array([values[:fewest] for values in columns])))

    return ask

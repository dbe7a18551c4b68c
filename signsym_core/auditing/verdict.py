"""From findings to a verdict in words: sound, weak attack, masked gradient, or undecided.

A verdict is about the given models on these images; an interval over images says how certain it is. What other seeds
would give is covered by a gap's interval (`signsym_core.statistics.intervals`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from signsym_core.auditing.checks import CHECKS, Check, findings
from signsym_core.auditing.comparisons import CheckFinding
from signsym_core.auditing.evidence import Evidence
from signsym_core.auditing.finding import Finding
from signsym_core.auditing.masking import GREY, TWO_POINTS
from signsym_core.statistics.intervals import interval

Kind = Literal["sound", "weak attack", "masked gradient", "undecided"]

#: Overstatement of a score that a sound verdict must exclude, and the least distance of a clean score from chance, so
#: that so much can be lost at all.
GRAVE = 0.1
#: With fewer images no interval over images has its nominal coverage, so that nothing is decided.
FEWEST = 30
#: Images that a sound verdict needs. No check is raised unless six images differ (`masking.FEW_DIFFER`); with fewer
#: images the chance of that is below 80 % where 10 % really differ: P(Binomial(78, 0.1) >= 6) = 0.8.
ENOUGH = 80


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckResult:
    """A check that could be made, with its worst finding: a raised one first, then the one with the largest excess."""

    check: Check
    finding: Finding
    #: None where the finding is about no ε.
    epsilon: float | None

    @property
    def words(self) -> str:
        """The evidence in a sentence, with its ε."""
        return self.finding.words + ("" if self.epsilon is None else f" at ε = {self.epsilon:.4g}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
    """The verdict on one model, with the results of all checks."""

    kind: Kind
    #: By how much the score under the model's own gradient is too high, 0 .. 1, and at which ε; None unless the
    #: gradient is masked.
    overstated: float | None = None
    epsilon: float | None = None
    made: tuple[CheckResult, ...]
    #: Checks that the verdict needs and that could not be made.
    missing: tuple[Check, ...] = ()
    #: Reasons why it is undecided, besides missing checks, each in words.
    reasons: tuple[str, ...] = ()
    #: Whether the models themselves were probed, not only their outcomes.
    probed: bool = True

    @property
    def raised(self) -> tuple[CheckResult, ...]:
        """The raised checks, except those that decide nothing."""
        return tuple(result for result in self.made if result.finding.raised and result.check.level != "told")

    @property
    def words(self) -> str:
        """The verdict in words."""
        ids = ", ".join(result.check.id for result in self.raised)
        if self.kind == "masked gradient":
            assert self.overstated is not None, "it is masked because an attack breaks more"
            return f"masked gradient (by {100 * self.overstated:.1f} points at ε = {self.epsilon:.4g}; {ids})"
        if self.kind == "weak attack":
            return f"weak attack ({ids})"
        if self.kind == "sound":
            return "sound" if self.probed else "sound (not probed)"
        missing = f"missing: {', '.join(check.id for check in self.missing)}" if self.missing else ""
        suspicion = f"; raised already: {ids}" if ids else ""
        if not self.reasons:
            return f"undecided ({missing}{suspicion})"
        return "undecided: " + "; ".join([*self.reasons, *([missing] if missing else [])]) + suspicion


def judge(evidence: Evidence, by_check: Mapping[str, Sequence[CheckFinding]] | None = None) -> Verdict:
    """Make every check that can be made, and decide; `by_check` are the findings, where they are known already.

    The first of these that holds: Undecided, with fewer than 30 images or a clean score that is not above chance, where
    there is no robustness to judge. Masked, where the exact gradient is known (or the model has no other) and an attack
    breaks more than the reported one, that is, a check of the level "masked" is raised. Undecided, where a check of the
    minimal set could not be made, or a sign of a wrong gradient is neither confirmed nor explained by an attack. Weak
    attack, where a check of that level is raised. Undecided, with fewer than 80 images, on which a gap of 10 points is
    easily missed. Else sound.

    A model that is not converted needs no separate exact gradient, and a black-box attack may replace the transfer from
    a twin. A model whose backward pass is autograd's by construction needs no probe.
    """
    by_check = findings(evidence) if by_check is None else by_check
    results = [_worst(check, by_check[check.id]) for check in CHECKS if by_check[check.id]]
    missing = _missing(evidence, by_check)
    raised = {m.check.id: m for m in results if m.finding.raised}
    levels = {m.check.level for m in raised.values()}
    no_exact = any(check.id == "G1" for check in missing)
    size = _largest(by_check["R1"])
    reasons = _hopeless(evidence, size) if size else []
    overstated: tuple[float | None, float | None] = (None, None)
    kind: Kind
    if reasons:
        kind = "undecided"
    elif "masked" in levels and not no_exact:
        kind, missing, overstated = "masked gradient", [], _overstated(raised)
    else:
        reasons = [] if missing else _unexplained(evidence, by_check, raised)
        kind = "undecided" if missing or reasons else "weak attack" if "weak" in levels else "sound"
        # The verdict rests on as many images as the smallest of the checks that it needs.
        needed = ["R1", "G1", "S1", "T1" if by_check["T1"] else "B1"]
        fewest = min((_largest(by_check[name]) for name in needed if by_check[name]), default=0)
        if 0 < fewest < ENOUGH and kind != "weak attack":
            kind, reasons = "undecided", [_too_few(fewest), *reasons]
    return Verdict(
        kind=kind,
        overstated=overstated[0],
        epsilon=overstated[1],
        made=tuple(results),
        missing=tuple(missing),
        reasons=tuple(reasons),
        probed=bool(evidence.probes),
    )


def _worst(check: Check, candidates: Sequence[CheckFinding]) -> CheckResult:
    worst = max(candidates, key=lambda candidate: (candidate.finding.raised, _excess(check, candidate.finding)))
    return CheckResult(check=check, finding=worst.finding, epsilon=worst.epsilon)


def _largest(findings_of_check: Sequence[CheckFinding]) -> int:
    """The largest number of images of a finding; 0 where there is none."""
    return max((candidate.finding.n for candidate in findings_of_check), default=0)


def _missing(evidence: Evidence, by_check: Mapping[str, Sequence[CheckFinding]]) -> list[Check]:
    """The checks that a verdict needs and that could not be made."""
    needless: set[str] = set()
    if not evidence.converted:
        needless.add("G1")
        if by_check["B1"]:
            needless |= {"T1", "T1b"}
    if evidence.autograd:
        needless |= {"G2", "G2b", "G5"}
    return [check for check in CHECKS if check.minimal and not by_check[check.id] and check.id not in needless]


def _hopeless(evidence: Evidence, size: int) -> list[str]:
    """Reasons why the model's robustness cannot be judged at all."""
    reasons = []
    if size < FEWEST:
        reasons.append(_too_few(size))
    best = evidence.clean or max(evidence.runs, key=lambda run: run.score)
    score = interval(best.outcomes.mean(axis=0, dtype=np.float64)[None])
    # An untrained network puts most images into a few classes, which gives up to about three times chance.
    if score.lo <= min(evidence.chance + GRAVE, 3 * evidence.chance):
        name = "clean accuracy" if np.isin(best.outcomes, (0, 1)).all() else "clean score"
        near = "" if score.lo <= evidence.chance else f" by {100 * GRAVE:.0f} points"
        what = f"{name} {100 * score.value:.1f} % is not above chance ({100 * evidence.chance:.1f} %){near}"
        reasons.append(f"no verdict on robustness: {what}")
    return reasons


def _too_few(size: int) -> str:
    return f"too few images ({size}; at least {ENOUGH})"


def _unexplained(
    evidence: Evidence, by_check: Mapping[str, Sequence[CheckFinding]], raised: Mapping[str, CheckResult]
) -> list[str]:
    """The signs of a wrong gradient that no attack explains, as one reason in words."""
    # The exact gradient was followed where the feedback left room for overstatement, and broke no more.
    exact = any(_telling(evidence, comparison) for comparison in by_check["G1"])
    # The same for the mean over the model's draws.
    averaged = bool(by_check["E1"])
    explained = {
        **{"G2": exact, "G2b": exact, "G3": exact, "G5": exact or averaged, "G5b": averaged, "G5c": averaged},
        **{name: name in raised and raised[name].finding.first <= TWO_POINTS for name in ("G4", "G4b", "G4c")},
    }
    signs = [name for name, m in raised.items() if m.check.level == "sign" and not explained[name]]
    if not signs:
        return []
    random = " (outputs or gradients are random: run gradient eot)" if {"G5", "G5b", "G5c"} & set(signs) else ""
    return [f"{', '.join(signs)} raised, but no attack that was run breaks more{random}"]


def _telling(evidence: Evidence, comparison: CheckFinding) -> bool:
    """Whether the two gradients were compared where a difference between them could have been seen."""
    clean = evidence.clean or max(evidence.runs, key=lambda run: run.score)
    return comparison.finding.first >= GRAVE and comparison.finding.second <= clean.score - GRAVE


def _excess(check: Check, finding: Finding) -> float:
    """How far the first number is above the second, or below it in the checks of a too short reach."""
    return (finding.second - finding.first) if check.id in ("S2", "S2b") else finding.first - finding.second


def _overstated(raised: Mapping[str, CheckResult]) -> tuple[float | None, float | None]:
    """The largest loss that another attack than the model's own causes: the exact gradient's where it is known."""
    for ids in (("G1",), ("T1", "B1", "E1")):
        members = [raised[name] for name in ids if name in raised]
        if members:
            worst = max(members, key=lambda m: _excess(m.check, m.finding))
            return _excess(worst.check, worst.finding), worst.epsilon
    return None, None


def telling_epsilon(evidence: Evidence) -> float | None:
    """The most informative ε below 0.5: where the two gradients differ most, else near the middle of the curve.

    None where there are no attacks.
    """
    choices = []
    for epsilon in sorted({run.epsilon for run in evidence.of(below=GREY)}):
        feedback, exact = (evidence.strongest(gradient, epsilon) for gradient in ("feedback", "exact"))
        if exact is not None:
            apart = 0.0 if feedback is None else feedback.score - exact.score
            choices.append((round(apart, 6), -abs(exact.score - 0.5), epsilon))
        elif feedback is not None:
            choices.append((0.0, -abs(feedback.score - 0.5), epsilon))
    return max(choices)[2] if choices else None

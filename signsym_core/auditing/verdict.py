"""From findings to a verdict in words: sound, weak attack, masked gradient, or undecided.

A verdict is about the given models on these images; an interval over images says how certain it is. What other seeds
would give is covered by a gap's interval (`signsym_core.statistics.intervals`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from signsym_core.auditing.checks import CHECKS, Check, CheckResult, findings
from signsym_core.auditing.evidence import Evidence
from signsym_core.auditing.finding import Finding
from signsym_core.auditing.masking import GREY
from signsym_core.auditing.observations import CheckFinding
from signsym_core.auditing.reasons import ENOUGH, hopeless, too_few, unexplained

Kind = Literal["sound", "weak attack", "masked gradient", "undecided"]


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
    #: Whether "masked gradient" may be what a poor loss did to the attacks along the gradient: see `_may_be_the_loss`.
    may_be_the_loss: bool = False

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
            doubt = ", or a poor loss" if self.may_be_the_loss else ""
            return f"masked gradient (by {100 * self.overstated:.1f} points at ε = {self.epsilon:.4g}; {ids}){doubt}"
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
    reasons = hopeless(evidence, size) if size else []
    overstated: tuple[float | None, float | None] = (None, None)
    kind: Kind
    if reasons:
        kind = "undecided"
    elif "masked" in levels and not no_exact:
        kind, missing, overstated = "masked gradient", [], _overstated(raised)
    else:
        reasons = [] if missing else unexplained(evidence, by_check, raised)
        kind = "undecided" if missing or reasons else "weak attack" if "weak" in levels else "sound"
        # The verdict rests on as many images as the smallest of the checks that it needs.
        needed = ["R1", "G1", "S1", "T1" if by_check["T1"] else "B1"]
        fewest = min((_largest(by_check[name]) for name in needed if by_check[name]), default=0)
        if 0 < fewest < ENOUGH and kind != "weak attack":
            kind, reasons = "undecided", [too_few(fewest), *reasons]
    return Verdict(
        kind=kind,
        overstated=overstated[0],
        epsilon=overstated[1],
        made=tuple(results),
        missing=tuple(missing),
        reasons=tuple(reasons),
        probed=bool(evidence.probes),
        may_be_the_loss=kind == "masked gradient" and _may_be_the_loss(evidence, raised),
    )


def _may_be_the_loss(evidence: Evidence, raised: Mapping[str, CheckResult]) -> bool:
    """Whether only an attack that does not follow the model's gradient says that it is masked.

    Where every probe says that the gradient is right, the cross-entropy may be what misleads: that of small logits
    raises all other classes alike, so that a search for the smallest margin breaks more. Never after an attack along
    the own gradient on a ratio of logits, which does not depend on their size.
    """
    deciding = {name for name, result in raised.items() if result.check.level in ("masked", "sign")}
    followed = (
        run.attack == "autoattack" or "dlr" in run.parameters
        for gradient in ("feedback", "exact")
        for run in evidence.of(gradient=gradient, below=GREY)
    )
    return deciding <= {"T1", "B1"} and not any(followed)


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

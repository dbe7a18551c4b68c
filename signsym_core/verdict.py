"""From findings to a verdict in words: sound, weak attack, masked gradient, or undecided."""

from __future__ import annotations

import dataclasses
from typing import Literal

from signsym_core.checks import CHECKS, Check
from signsym_core.evidence import Evidence
from signsym_core.finding import Finding

Kind = Literal["sound", "weak attack", "masked gradient", "undecided"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Made:
    """A check that could be made, with its worst finding: a raised one first, then the one that goes furthest."""

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
    """What the checks say of one model."""

    kind: Kind
    #: By how much the score under the model's own gradient is too high, 0 .. 1, and at which ε; None unless masked
    #: by an amount that was measured.
    overstated: float | None = None
    epsilon: float | None = None
    made: tuple[Made, ...]
    #: Checks that the verdict needs and that could not be made.
    missing: tuple[Check, ...] = ()

    @property
    def raised(self) -> tuple[Made, ...]:
        """The checks that are raised, but the one about size."""
        return tuple(made for made in self.made if made.finding.raised and made.check.level != "few")

    @property
    def words(self) -> str:
        """The verdict as people read it."""
        ids = ", ".join(made.check.id for made in self.raised)
        if self.kind == "masked gradient":
            if self.overstated is None:
                return f"masked gradient (by an amount that these attacks do not show; {ids})"
            return f"masked gradient (by {100 * self.overstated:.1f} points at ε = {self.epsilon:.4g}; {ids})"
        if self.kind == "weak attack":
            return f"weak attack ({ids})"
        if self.kind == "undecided":
            suspicion = f"; raised already: {ids}" if ids else ""
            return f"undecided (missing: {', '.join(check.id for check in self.missing)}{suspicion})"
        return "sound"


def judge(evidence: Evidence) -> Verdict:
    """Make every check that can be made, and decide.

    Masked: the exact gradient is known (or the model has no other) and a check of the level "masked" is raised. Weak
    attack: no such one is, but one of the level "weak". Undecided: a check of the minimal set could not be made, and
    nothing of what could be decides without it. Sound: all of them were made and none is raised.

    A model that is not a converted one needs no exact gradient beside its own, and a black-box attack may stand for
    the transfer from a twin.
    """
    made: list[Made] = []
    missing: list[Check] = []
    for check in CHECKS:
        found = list(check.look(evidence))
        if found:
            epsilon, finding = max(found, key=lambda pair: (pair[1].raised, _excess(check, pair[1])))
            made.append(Made(check=check, finding=finding, epsilon=epsilon))
        elif check.minimal and not (check.id == "G1" and not evidence.converted):
            missing.append(check)
    if not evidence.converted and any(m.check.id == "B1" for m in made):
        missing = [check for check in missing if check.id not in ("T1", "T1b")]
    levels = {m.check.level for m in made if m.finding.raised}
    no_exact = any(check.id == "G1" for check in missing)
    kind: Kind = "sound"
    if "masked" in levels and not no_exact:
        kind, missing = "masked gradient", []
    elif missing:
        kind = "undecided"
    elif "weak" in levels:
        kind = "weak attack"
    overstated, epsilon = _overstated(made) if kind == "masked gradient" else (None, None)
    return Verdict(kind=kind, overstated=overstated, epsilon=epsilon, made=tuple(made), missing=tuple(missing))


def _excess(check: Check, finding: Finding) -> float:
    """How far the first number is above the second, or below it in checks of a reach that may be too short."""
    return (finding.second - finding.first) if check.id in ("S2", "S2b") else finding.first - finding.second


def _overstated(made: list[Made]) -> tuple[float | None, float | None]:
    """The largest loss that another attack than the model's own causes: the exact gradient's where it is known."""
    for ids in (("G1",), ("T1", "B1")):
        found = [m for m in made if m.check.id in ids and m.finding.raised]
        if found:
            worst = max(found, key=lambda m: _excess(m.check, m.finding))
            return _excess(worst.check, worst.finding), worst.epsilon
    return None, None

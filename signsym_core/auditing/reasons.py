"""Reasons why nothing can be decided about a model, each in words."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from signsym_core.auditing.checks import CheckResult
from signsym_core.auditing.evidence import Evidence
from signsym_core.auditing.gradientchecks import wrong_direction
from signsym_core.auditing.masking import TWO_POINTS
from signsym_core.auditing.observations import CheckFinding
from signsym_core.statistics.intervals import interval

#: Overstatement of a score that a sound verdict must exclude, and the least distance of a clean score from chance, so
#: that so much can be lost at all.
GRAVE = 0.1
#: With fewer images no interval over images has its nominal coverage, so that nothing is decided.
FEWEST = 30
#: Images that a sound verdict needs. No check is raised unless six images differ (`masking.FEW_DIFFER`); with fewer
#: images the chance of that is below 80 % where 10 % really differ: P(Binomial(78, 0.1) >= 6) = 0.8.
ENOUGH = 80


def hopeless(evidence: Evidence, size: int) -> list[str]:
    """Reasons why the model's robustness cannot be judged at all."""
    reasons = []
    if size < FEWEST:
        reasons.append(too_few(size))
    best = evidence.clean or max(evidence.runs, key=lambda run: run.score)
    score = interval(best.outcomes.mean(axis=0, dtype=np.float64)[None])
    # An untrained network puts most images into a few classes, which gives up to about three times chance.
    limit = min(evidence.chance + GRAVE, 3 * evidence.chance)
    if score.lo <= limit:
        name = "clean accuracy" if np.isin(best.outcomes, (0, 1)).all() else "clean score"
        known, chance = f"{name} {100 * score.value:.1f} %", f"chance ({100 * evidence.chance:.1f} %)"
        what = f"{known} is not above {chance}"
        if score.lo > evidence.chance:
            what = f"{known} is not clearly above {chance}: its interval begins at {100 * score.lo:.1f} %"
            what += f", and has to be above {100 * limit:.1f} %" if limit < 1 else ", and no score is enough above it"
        reasons.append(f"no verdict on robustness: {what}")
    return reasons


def too_few(size: int) -> str:
    """That so few images decide nothing, in words."""
    return f"too few images ({size}; at least {ENOUGH})"


def unexplained(
    evidence: Evidence, by_check: Mapping[str, Sequence[CheckFinding]], raised: Mapping[str, CheckResult]
) -> list[str]:
    """The signs of a wrong gradient that no attack explains, as one reason in words."""
    # The exact gradient was followed where the feedback left room for overstatement, and broke no more.
    exact = any(_telling(evidence, comparison) for comparison in by_check["G1"])
    # The same for the mean over the model's draws.
    averaged = bool(by_check["E1"])
    # The exact gradient explains no wrong one where it is none itself, as the surrogate's of a spiking network.
    directions = [probe.exact_direction for probe in evidence.probes if probe.exact_direction is not None]
    is_gradient = not any(wrong_direction(direction).raised for direction in directions)
    explained = {
        **dict.fromkeys(("G2", "G2b"), exact and is_gradient),
        **{"G3": exact, "G5": exact or averaged, "G5b": averaged, "G5c": averaged},
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

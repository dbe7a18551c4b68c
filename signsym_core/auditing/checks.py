"""Which check applies to which runs of a model, and what a raised check means.

A check is made at every ε for which its runs exist; two attacks are compared only below ε = 0.5. The check functions
are in `masking` and `gradientchecks` beside this module; the order is that of tables. Audits, pages and reports all use
this module, so that they agree. Source of the list: Carlini et al. 2019 (1902.06705), plus the comparison of two
gradients, which only a model with a separate backward pass allows.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

import numpy as np

from signsym_core.auditing import comparisons, gradientchecks, masking, observations
from signsym_core.auditing.comparisons import Pair
from signsym_core.auditing.evidence import Evidence
from signsym_core.auditing.finding import Finding
from signsym_core.auditing.observations import CheckFinding

#: The meaning of a raised check: "masked", an attack breaks more than the reported one; "sign", the gradient may be
#: wrong, which an attack must confirm; "weak", the attack was too weak; "told", information that decides nothing.
Level = Literal["masked", "sign", "weak", "told"]


#: Outcomes that are compared in one batch at most.
AT_ONCE = 4_000_000


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
    """The findings of each check on a model, by the check's id, in the order of tables; by default of all checks."""
    return findings_of([evidence], checks)[0]


def findings_of(
    models: Sequence[Evidence], checks: Sequence[Check] | None = None
) -> list[dict[str, list[CheckFinding]]]:
    """`findings` of each of several models: their pairs of one shape are compared in one batch."""
    checks = CHECKS if checks is None else checks
    # Two checks may look at the same pairs.
    results_of_models = [
        {ask: list(ask(model)) for ask in dict.fromkeys(check.ask for check in checks)} for model in models
    ]
    pairs: dict[tuple[str, tuple[int, ...]], list[Pair]] = {}
    for results_of in results_of_models:
        for check in checks:
            for result in results_of[check.ask]:
                if isinstance(result, Pair):
                    pairs.setdefault((check.flag, result.claimed.shape), []).append(result)
    compared: dict[tuple[str, Pair], CheckFinding] = {}
    for (flag, shape), alike in pairs.items():
        size = max(1, AT_ONCE // math.prod(shape))
        for some in (alike[first : first + size] for first in range(0, len(alike), size)):
            claimed, stronger = np.stack([pair.claimed for pair in some]), np.stack([pair.stronger for pair in some])
            for pair, finding in zip(some, masking.compared(flag, claimed, stronger), strict=True):
                compared[flag, pair] = CheckFinding(finding=finding, epsilon=pair.epsilon, run=pair.run)
    return [
        {
            check.id: [
                result if isinstance(result, CheckFinding) else compared[check.flag, result]
                for result in results_of[check.ask]
            ]
            for check in checks
        }
        for results_of in results_of_models
    ]


#: What checks of the model itself need, which no attack supplies.
MODEL = "the model itself at some images"

_TRANSFER = "an attack with the gradients feedback and transfer"
_BLACK_BOX = "a black-box attack at the ε of one with the gradient feedback"
_EOT = "an attack with the gradients feedback and eot"
_FROM_TRANSFER, _FROM_BLACK_BOX = (comparisons.beside_white_box(gradient) for gradient in ("transfer", "none"))

#: id, flag, level, whether a verdict needs it, how it is made, what it needs.
_TABLE: tuple[tuple[str, str, Level, bool, Callable[[Evidence], Iterator[CheckFinding | Pair]], str], ...] = (
    (
        "G1",
        "exact_gradient_breaks",
        "masked",
        True,
        comparisons.exact_gradient,
        "an attack with the gradients feedback and exact",
    ),
    ("G2", "wrong_gradient", "sign", True, observations.probed(gradientchecks.wrong_gradient, "rho"), MODEL),
    ("G2b", "wrong_direction", "sign", True, observations.probed(gradientchecks.wrong_direction, "direction"), MODEL),
    (
        "G3",
        "inefficient_gradient",
        "sign",
        False,
        observations.probed(gradientchecks.inefficient_gradient, "efficiency"),
        MODEL,
    ),
    ("G4", "broken_gradient", "sign", False, observations.probed(gradientchecks.broken_gradient, "broken"), MODEL),
    (
        "G4b",
        "zero_gradient",
        "sign",
        False,
        observations.zero_gradient,
        "outcomes that say whether an image has a gradient, as fgsm's do",
    ),
    (
        "G4c",
        "nonfinite_gradient",
        "sign",
        False,
        observations.nonfinite_gradient,
        "outcomes that say where a gradient was not finite",
    ),
    ("G5", "random_gradient", "sign", True, observations.probed(gradientchecks.random_gradient, "repeat"), MODEL),
    ("G5b", "random_outputs", "sign", False, observations.probed(gradientchecks.random_outputs, "unsteady"), MODEL),
    (
        "G5c",
        "random_forward",
        "sign",
        False,
        observations.random_forward,
        "the clean performance and an attack at ε = 0",
    ),
    ("T1", "transfer_wins", "masked", True, _FROM_TRANSFER, _TRANSFER),
    ("T1b", "transfer_stronger", "weak", True, _FROM_TRANSFER, _TRANSFER),
    ("B1", "black_box_wins", "masked", False, _FROM_BLACK_BOX, _BLACK_BOX),
    ("B1b", "black_box_stronger", "weak", False, _FROM_BLACK_BOX, _BLACK_BOX),
    ("E1", "eot_wins", "masked", False, comparisons.beside_white_box("eot"), _EOT),
    ("B2", "noise_breaks", "weak", False, comparisons.noise_alone, "the attack noise"),
    (
        "B2b",
        "noise_as_strong",
        "told",
        False,
        observations.no_better_than_noise,
        "the attack noise at the ε of another",
    ),
    ("S1", "one_step_stronger", "weak", True, comparisons.one_step, "a one-step and an iterated attack at one ε"),
    ("S2", "short_reach", "weak", True, observations.reach, "an attack of gradient steps"),
    (
        "S2b",
        "short_of_border",
        "weak",
        False,
        observations.border,
        "an attack of gradient steps, and each image's change",
    ),
    ("S3", "more_steps_help", "weak", False, comparisons.more_steps, "one attack with two numbers of steps"),
    ("S5", "not_monotone", "weak", False, comparisons.monotone, "one attack at two ε"),
    ("U1", "grey_limit", "weak", True, observations.grey, "an attack at ε = 0.5"),
    ("U2", "unbounded_survives", "weak", False, observations.unbounded, "an attack at ε = 1"),
    ("R1", "small_n", "told", True, observations.sample_size, "an attack"),
)
#: Every check, in the order of tables.
CHECKS: tuple[Check, ...] = tuple(
    Check(id=id, flag=flag, level=level, minimal=minimal, ask=ask, needs=needs)
    for id, flag, level, minimal, ask, needs in _TABLE
)


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

"""The audit's verdict in a few words, as tables print it."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.drawing.blocks import State
from signsym_core.auditing.verdict import Verdict

_STATES: Mapping[str, State] = {"masked gradient": "raised", "sound": "fine"}


def in_short(verdict: Verdict, epsilons: Mapping[float, str]) -> list[str]:
    """The verdict, and by how much a masked gradient overstated the score, at which ε as its grid wrote it."""
    if verdict.overstated is None or verdict.epsilon is None:
        return [verdict.words]
    where = epsilons.get(verdict.epsilon, f"{verdict.epsilon:.4g}")
    return [verdict.kind, f"by {100 * verdict.overstated:.1f} points at ε = {where}"]


def state_of(verdict: Verdict) -> State:
    """How a table shows it."""
    return _STATES.get(verdict.kind, "")

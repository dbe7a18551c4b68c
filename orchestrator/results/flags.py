"""The audit's checks by line: what is found where, for tables and for the rings on curves."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from orchestrator.results.curve import Curve
from orchestrator.results.evidence import Models
from orchestrator.results.line import Line
from signsym_core.checks import CHECKS as MADE
from signsym_core.checks import MODEL
from signsym_core.finding import Finding

#: The checks of outcomes with what each needs. Those that look at a model itself are the audit's alone.
CHECKS = {check.flag: check.needs for check in MADE if check.needs != MODEL}
_FLAGS = {check.id: check.flag for check in MADE}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Found:
    """A finding at an epsilon; None where it is about the whole line."""

    finding: Finding
    epsilon: float | None = None


class Flags:
    """The findings on the models of lines, each told on the line whose score is in question."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._found: dict[int, dict[str, list[Found]]] = {}

    def of(self, lines: Sequence[Line]) -> list[dict[str, list[Found]]]:
        """For each line, by check, what it found; a check that is not made on it is not in it.

        What is found of a model as a whole is told on each of its lines.
        """
        new = {line.number: line for line in lines if line.number not in self._found}
        found: dict[int, dict[str, list[Found]]] = {number: {} for number in new}
        names = dict.fromkeys(line.model for line in new.values())
        judged = dict(zip(names, self.models.judged(names), strict=True))
        for number, line in new.items():
            for judgement in judged[line.model]:
                for name, members in judgement.findings.items():
                    here = [Found(finding=f, epsilon=e) for place, e, f in members if place in (None, number)]
                    if here:
                        found[number].setdefault(_FLAGS[name], []).extend(here)
        self._found |= found
        return [self._found[line.number] for line in lines]

    def rings(self, curves: Sequence[Curve]) -> dict[tuple[int, float], tuple[str, ...]]:
        """The flags raised at each point."""
        lines = self.models.query.index.lines
        rings: dict[tuple[int, float], tuple[str, ...]] = {}
        for curve, by_flag in zip(curves, self.of([lines[curve.line] for curve in curves]), strict=True):
            for flag, members in by_flag.items():
                for found in members:
                    if found.finding.raised and found.epsilon is not None:
                        at = (curve.line, found.epsilon)
                        # Attacks may be compared with several others at one epsilon.
                        rings[at] = tuple(dict.fromkeys((*rings.get(at, ()), flag)))
        return rings

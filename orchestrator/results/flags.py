"""The findings of the audit's checks by line, for tables and for the rings on curves."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.results.curve import Curve
from orchestrator.results.evidence import Models
from orchestrator.results.judgements import LineFinding
from orchestrator.results.line import Line
from signsym_core.auditing.checks import CHECKS as ALL_CHECKS
from signsym_core.auditing.checks import MODEL

#: The checks that need only outcomes, with what each needs. Checks of the model belong to the audit alone.
CHECKS = {check.flag: check.needs for check in ALL_CHECKS if check.needs != MODEL}
#: The id of each check, by which verdicts name it.
IDS = {check.flag: check.id for check in ALL_CHECKS}
_FLAGS = {check.id: check.flag for check in ALL_CHECKS}


class Flags:
    """The findings on the models of lines, each at the line whose score is in question."""

    def __init__(self, models: Models) -> None:
        self.models = models
        self._findings: dict[int, dict[str, list[LineFinding]]] = {}
        #: The flags raised at each ε of a line, by its number.
        self._rings: dict[int, dict[float, tuple[str, ...]]] = {}

    def of(self, lines: Sequence[Line]) -> list[dict[str, list[LineFinding]]]:
        """For each line its findings by check; a check that was not made on the line is missing.

        A finding on the model is listed at each of its lines.
        """
        new = {line.number: line for line in lines if line.number not in self._findings}
        by_line: dict[int, dict[str, list[LineFinding]]] = {number: {} for number in new}
        names = dict.fromkeys(line.model for line in new.values())
        judged = dict(zip(names, self.models.judged(names), strict=True))
        for number, line in new.items():
            for judgement in judged[line.model]:
                for name, members in judgement.findings.items():
                    here = [line_finding for line_finding in members if line_finding.line in (None, number)]
                    if here:
                        by_line[number].setdefault(_FLAGS[name], []).extend(here)
        self._findings |= by_line
        return [self._findings[line.number] for line in lines]

    def rings(self, curves: Sequence[Curve]) -> dict[tuple[int, float], tuple[str, ...]]:
        """The flags raised at each point."""
        lines = self.models.query.index.lines
        new: dict[int, dict[float, tuple[str, ...]]] = {
            curve.line: {} for curve in curves if curve.line not in self._rings
        }
        for line, epsilon, check in self.models.raised(lines[number] for number in new):
            # Attacks may be compared with several others at one epsilon.
            new[line][epsilon] = tuple(dict.fromkeys((*new[line].get(epsilon, ()), _FLAGS[check])))
        self._rings |= new
        return {(curve.line, epsilon): flags for curve in curves for epsilon, flags in self._rings[curve.line].items()}

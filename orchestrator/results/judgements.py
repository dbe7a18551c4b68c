"""The evidence on a model of the store, and the verdict on it with the scores that it is about."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from orchestrator.results.line import Line
from signsym_core.auditing.checks import findings, findings_of
from signsym_core.auditing.evidence import Evidence, Run
from signsym_core.auditing.finding import Finding
from signsym_core.auditing.observations import CheckFinding
from signsym_core.auditing.verdict import Verdict, judge, telling_epsilon
from signsym_core.statistics.intervals import Interval, interval

if TYPE_CHECKING:
    # Probes need a model and torch; outcomes are judged without them.
    from signsym_core.auditing.probes import Probe

#: Columns that make one setting, beside the seed.
SETTING = (
    *("task", "task_params", "dataset", "dataset_params", "backbone", "backbone_params"),
    *("weights", "finetune", "rule", "rule_params"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackScore:
    """The score under the strongest attack of one kind."""

    #: The attack, its parameters, and its gradient.
    run: tuple[str, str, str]
    score: Interval
    steps: int = 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class LineFinding:
    """A finding on a line, by its number, at an epsilon; None where it is about the model, or about the whole line."""

    line: int | None
    epsilon: float | None
    finding: Finding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judgement:
    """One model in numbers: a row of the table rule | clean | own feedback | exact gradient | verdict."""

    #: One of its lines, for its labels in figures and tables.
    line: Line
    #: Without an attack; None where that was not measured.
    clean: AttackScore | None
    #: The most informative ε below 0.5, and its label in the grid; None and "" where there was no attack.
    epsilon: float | None
    label: str
    #: The strongest attacks at that ε along the model's own feedback and along the exact gradient, which is the result.
    feedback: AttackScore | None
    exact: AttackScore | None
    #: Its `kind` and its `words`.
    verdict: Verdict
    #: The findings of each check, by its id.
    findings: Mapping[str, Sequence[LineFinding]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelEvidence:
    """The evidence on one setting under one rule, with its seeds."""

    #: The columns SETTING, as in the results.
    setting: Mapping[str, str]
    #: The key of each seed's fine-tune.
    jobs: Mapping[int, str]
    evidence: Evidence
    #: The label of each epsilon of its attacks, as its grid wrote it.
    labels: Mapping[float, str]
    #: Its lines by attack, parameters and gradient.
    lines: Mapping[tuple[str, str, str], Line]

    @property
    def name(self) -> tuple[str, ...]:
        """Its name, see `Line.model`."""
        return next(iter(self.lines.values())).model

    def judged(self, probes: tuple[Probe, ...] = ()) -> Judgement:
        """The verdict with its evidence; `probes` are those of its models, one for each seed."""
        evidence = dataclasses.replace(self.evidence, probes=probes) if probes else self.evidence
        return self._judged(evidence, findings(evidence))

    def _judged(self, evidence: Evidence, findings_by_check: Mapping[str, Sequence[CheckFinding]]) -> Judgement:
        epsilon = telling_epsilon(evidence)
        feedback, exact = (None if epsilon is None else evidence.strongest(g, epsilon) for g in ("feedback", "exact"))
        return Judgement(
            line=next(iter(self.lines.values())),
            clean=score_of(evidence.clean),
            epsilon=epsilon,
            label="" if epsilon is None else self.labels.get(epsilon, f"{epsilon:g}"),
            feedback=score_of(feedback),
            exact=score_of(exact),
            verdict=judge(evidence, findings_by_check),
            findings={
                name: [LineFinding(line=self.line_of(f.run), epsilon=f.epsilon, finding=f.finding) for f in members]
                for name, members in findings_by_check.items()
            },
        )

    def line_of(self, run: Run | None) -> int | None:
        """The number of the line of a run; None for None."""
        return None if run is None else self.lines[_named(run)].number


def judged_together(models: Sequence[ModelEvidence]) -> list[Judgement]:
    """The verdicts on several models, without probes: many at once take half the time."""
    by_model = findings_of([model.evidence for model in models])
    return [model._judged(model.evidence, by_check) for model, by_check in zip(models, by_model, strict=True)]


def score_of(run: Run | None) -> AttackScore | None:
    """The score of a run, with its interval; None for None."""
    return None if run is None else AttackScore(run=_named(run), score=interval(run.outcomes), steps=run.steps)


def _named(run: Run) -> tuple[str, str, str]:
    return run.attack, run.parameters, run.gradient

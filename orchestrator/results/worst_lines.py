"""The worst case over attacks of every model of a figure, over ε, with its gap to BP."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from orchestrator.jobs.surrogates import names_surrogate
from orchestrator.results.curve import Curve, Point, curve_of
from orchestrator.results.evidence import Models
from orchestrator.results.holm import holm
from orchestrator.results.judgements import AttackScore, ModelEvidence, score_of
from orchestrator.results.labels import gradient
from orchestrator.results.line import FIGURE, Line
from orchestrator.results.members import measuring, stepping
from orchestrator.results.worst_case import WorstCase, paired_worst_cases, unmatched, worst_case
from signsym_core.auditing.evidence import NULL, Run
from signsym_core.statistics.intervals import Interval, gaps, intervals

#: A model and a norm, and one of its points.
_Name = tuple[tuple[str, ...], str]
_Place = tuple[tuple[str, ...], str, float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorstPoint:
    """The worst case of one model at one ε."""

    point: Point
    #: The lines that it is over, the strongest first.
    lines: tuple[Line, ...]
    #: Whether the gap to BP excludes zero after Holm's correction.
    clear: bool
    #: The same gap over the runs along the model's own feedback alone; None where BP lacks one of their attacks.
    feedback: Interval | None
    feedback_clear: bool
    #: The runs without a counterpart, for want of which there is no gap to BP.
    unmatched: tuple[str, ...]

    @property
    def conclusive(self) -> bool:
        """Whether it is a result: the exact gradient, or an attack that asks the model without any, is in it.

        Noise asks nothing, and what survives other gradients alone may survive for want of the right one. Of a rule
        without a backward pass the feedback is the exact gradient.
        """
        return any(
            line.attack not in NULL
            and (line.gradient in ("exact", "none") or (line.gradient == "feedback" and stepping(line.rule)))
            for line in self.lines
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class WorstLine:
    """The worst cases of one model in one norm, and over how many comparisons their gaps were corrected."""

    #: One of the model's lines, for its labels.
    line: Line
    #: The score without an attack on all images that it was measured on; None where it was not.
    clean: AttackScore | None
    curve: Curve
    points: Mapping[float, WorstPoint]
    family: int


class WorstCases:
    """The worst cases of the models of a query, computed figure by figure when they are asked for, and kept.

    Of a figure all rules and ε of a norm are one family for Holm's correction, whatever is shown.
    """

    def __init__(self, models: Models) -> None:
        self.models = models
        #: By the choice of attacks the models without a worst case, with the reason.
        self._refused: dict[tuple[str, ...], dict[tuple[str, ...], str]] = {}
        self._lines: dict[tuple[tuple[str, ...], tuple[str, ...]], list[WorstLine]] = {}
        #: By the number of a line.
        self._labels: dict[int, str] = {}
        self._lock = threading.RLock()

    def of(self, figures: Iterable[tuple[str, ...]], attacks: Sequence[str] = ()) -> list[WorstLine]:
        """The worst cases of the models of some figures, in their order, by norm and rule.

        Over every attack in the store on a model, along every gradient, noise too; or over `attacks` alone. What only
        measures is no attack here.
        """
        figures, chosen = list(dict.fromkeys(figures)), tuple(sorted(attacks))
        with self._lock:
            new = [figure for figure in figures if (figure, chosen) not in self._lines]
            names: dict[tuple[str, ...], list[tuple[str, ...]]] = {}
            if new:
                for name in self.models.query.index.models:
                    names.setdefault(name[: len(FIGURE)], []).append(name)
            for figure in new:
                self._lines[figure, chosen] = self._computed(names.get(figure, []), chosen)
            return [line for figure in figures for line in self._lines[figure, chosen]]

    def refused(self, attacks: Sequence[str] = ()) -> Mapping[tuple[str, ...], str]:
        """Why models of the figures that were asked for have no worst case, by their names."""
        return self._refused.get(tuple(sorted(attacks)), {})

    def _computed(self, names: Sequence[tuple[str, ...]], attacks: Sequence[str]) -> list[WorstLine]:
        runs: dict[_Place, list[Run]] = {}
        known: dict[tuple[str, ...], ModelEvidence] = {}
        refused = self._refused.setdefault(tuple(attacks), {})
        for model in self.models.known(names):
            if model.name in known:
                refused[model.name] = "one of its seeds was fine-tuned twice"
            known[model.name] = model
        for name, model in known.items():
            if reason := self._ambiguous(name, attacks):
                refused[name] = reason
            if name not in refused:
                runs |= _places(model, attacks)
        cases = {place: case for place, of_place in runs.items() if (case := worst_case(of_place)) is not None}
        bp = {
            place[1:]: of_place for place, of_place in reversed(runs.items()) if known[place[0]].setting["rule"] == "bp"
        }
        compared = {place: bp[place[1:]] for place in cases if place[1:] in bp and bp[place[1:]] is not runs[place]}
        lacking = {place: unmatched(runs[place], bp_runs) for place, bp_runs in compared.items()}
        alike = {place: (runs[place], bp_runs) for place, bp_runs in compared.items() if not lacking[place]}
        over_bp = _gaps(alike)
        feedback = _gaps({place: _along_feedback(runs[place], bp_runs) for place, bp_runs in compared.items()})
        clear = {norm: holm(_family(over_bp, norm)) for norm in {norm for _, norm, _ in cases}}
        feedback_clear = {norm: holm(_family(feedback, norm)) for norm in clear}
        scores = _together(intervals, {place: (case.outcomes,) for place, case in cases.items()})
        points: dict[_Name, dict[float, WorstPoint]] = {}
        for place, case in cases.items():
            name, norm, epsilon = place
            lines = [known[name].lines[run.attack, run.parameters, run.gradient] for run in case.runs]
            points.setdefault((name, norm), {})[epsilon] = WorstPoint(
                point=self._point(known[name], case, lines, scores[place], over_bp.get(place)),
                lines=tuple(lines),
                clear=place in clear[norm],
                feedback=feedback.get(place),
                feedback_clear=place in feedback_clear[norm],
                unmatched=tuple(f"{run.attack} ({run.gradient})" for run in lacking.get(place, ())),
            )
        return [
            WorstLine(
                line=next(iter(known[name].lines.values())),
                clean=score_of(known[name].evidence.clean),
                curve=self._curve(known[name], norm, of_model),
                points=of_model,
                family=len(_family(over_bp, norm)),
            )
            for (name, norm), of_model in sorted(points.items(), key=lambda pair: pair[0][1])
        ]

    def _ambiguous(self, name: tuple[str, ...], attacks: Sequence[str]) -> str:
        """Why a line of a model is ambiguous; "" where none is."""
        index = self.models.query.index
        lines = (line for line in index.models[name] if _chosen(line.attack, attacks) and not measuring(line.attack))
        return next((reason for line in lines if (reason := index.ambiguity(line))), "")

    def _point(
        self, model: ModelEvidence, case: WorstCase, lines: Sequence[Line], score: Interval, over_bp: Interval | None
    ) -> Point:
        query, seeds, epsilon = self.models.query, case.seeds, case.runs[0].epsilon
        row = query.rows_by_seed(lines[0], epsilon)[seeds[0]]
        means = case.outcomes.mean(axis=1, dtype="float64").tolist()
        return Point(
            epsilon=epsilon,
            label=model.labels[epsilon],
            score=score,
            by_seed=dict(zip(seeds, means, strict=True)),
            over_bp=over_bp,
            over_exact=None,
            reach=float("nan"),
            cell=str(query.index.value("cell", row)),
            runs=tuple(map(self.label, lines)),
        )

    def label(self, line: Line) -> str:
        """A run in a word: "pgd (exact)", "square"."""
        if line.number not in self._labels:
            attack = self.models.query.index.labels.of(line, "attack")
            self._labels[line.number] = attack if line.gradient == "none" else f"{attack} ({gradient(line)})"
        return self._labels[line.number]

    def _curve(self, model: ModelEvidence, norm: str, points: Mapping[float, WorstPoint]) -> Curve:
        line = next(iter(model.lines.values()))
        curve = curve_of(self.models.query.index, line, {epsilon: worst.point for epsilon, worst in points.items()})
        # Numbers of lines are from 0 on: this one is of no line of the index.
        return dataclasses.replace(
            curve, line=-1 - line.number, attack="worst case", attack_label="worst case", gradient="all", norm=norm
        )


def _places(model: ModelEvidence, attacks: Sequence[str]) -> dict[_Place, list[Run]]:
    """The runs of a model by norm and ε, in each norm that it was attacked in; ε = 0 is the same in all norms."""
    name, runs = model.name, [run for run in model.evidence.runs if _chosen(run.attack, attacks)]
    places: dict[_Place, list[Run]] = {}
    for norm in sorted({run.norm for run in runs if run.epsilon > 0}):
        for run in runs:
            if run.norm == norm or run.epsilon == 0:
                places.setdefault((name, norm, run.epsilon), []).append(run)
    return places


def _chosen(attack: str, attacks: Sequence[str]) -> bool:
    return not attacks or attack in (*attacks, "none")


def _along_feedback(runs: Sequence[Run], bp: Sequence[Run]) -> tuple[list[Run], list[Run]]:
    """The runs along the own feedback, and one of BP's of each of their attacks; none where BP lacks one of these.

    Of BP one source of gradient is as good as another, but for those of a named surrogate.
    """
    along = [run for run in runs if run.gradient == "feedback" and run.epsilon > 0]
    attacks = {(run.attack, run.parameters) for run in along}
    own = [run for run in bp if not names_surrogate(run.gradient)]
    by_attack = {(run.attack, run.parameters): run for run in sorted(own, key=lambda run: run.gradient == "feedback")}
    return (along, [by_attack[attack] for attack in sorted(attacks)]) if attacks <= by_attack.keys() else ([], [])


def _gaps(pairs: Mapping[_Place, tuple[Sequence[Run], Sequence[Run]]]) -> dict[_Place, Interval]:
    both = {place: shared for place, pair in pairs.items() if (shared := paired_worst_cases(*pair)) is not None}
    return _together(gaps, both)


def _together(
    function: Callable[..., list[Interval]], outcomes: Mapping[_Place, tuple[NDArray[Any], ...]]
) -> dict[_Place, Interval]:
    """The interval of each place: a function of outcomes of one shape [points, seeds, images], called once for each."""
    alike: dict[tuple[object, ...], list[_Place]] = {}
    for place, arrays in outcomes.items():
        alike.setdefault(tuple((x.shape, x.dtype.str) for x in arrays), []).append(place)
    interval_of: dict[_Place, Interval] = {}
    for places in alike.values():
        sides = zip(*(outcomes[place] for place in places), strict=True)
        interval_of |= zip(places, function(*map(np.stack, sides)), strict=True)
    # In their order, by which Holm's correction settles ties.
    return {place: interval_of[place] for place in outcomes}


def _family(by_place: Mapping[_Place, Interval], norm: str) -> dict[_Place, Interval]:
    return {place: gap for place, gap in by_place.items() if place[1] == norm}

"""Tables as the paper has them: models down, rules across, one score in each cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from orchestrator.explorer import members, style
from orchestrator.explorer.curve import Curve, Point
from orchestrator.explorer.holm import holm
from orchestrator.explorer.line import Line, asked_value, row_of, row_value
from orchestrator.explorer.printed import Printed, printed
from orchestrator.explorer.query import Query
from orchestrator.explorer.status import State, Status
from signsym_core.stats import gap

#: Rules of the paper's tables, in its order; others follow.
PAPER_RULES = ("bp", "usf", "frsf", "brsf")
_DECISION = ("hopskipjump", "boundary")
_LOST = "top-1 under a decision-based attack (the paper's caption does not say whether HopSkipJump or Boundary)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A table: its task, and its attacks or none for every attack that is chosen."""

    title: str
    task: str = ""
    attacks: tuple[str, ...] = ()


PRESETS = {
    "1": Preset(title="Table 1: clean top-1 of classification", task="classification", attacks=("none",)),
    "2": Preset(title="Table 2: clean mAP@k of hashing retrieval", task="hashing", attacks=("none",)),
    "3": Preset(title=f"Table 3: {_LOST}", task="classification", attacks=_DECISION),
    "4": Preset(title=f"Table 4: {_LOST}", task="classification", attacks=_DECISION),
    "all": Preset(title="Every attack of the filter"),
}


def preset_of(name: str, task: str) -> str:
    """The table that is meant where none is named: the clean scores of the task."""
    return name or next((known for known, preset in PRESETS.items() if preset.task == task), "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One cell of a table. `state` is "" where there is a score."""

    curve: Curve | None = None
    point: Point | None = None
    state: State | str = "not run"
    reason: str = ""
    printed: Printed | None = None
    #: Whether it is the highest of its row, and no gap to the runner-up includes zero after Holm.
    best: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One row: what it is about, and a score for each rule."""

    #: Backbone, data set, attack and gradient, as people read them.
    names: tuple[str, str, str, str]
    scores: Mapping[str, Score]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table with its rules, and over how many comparisons "best" was corrected."""

    rules: tuple[str, ...]
    rows: tuple[Row, ...]
    family: int


#: A row by what its lines share.
_Found = dict[tuple[str, ...], dict[str, Score]]
_Names = dict[tuple[str, ...], tuple[str, str, str, str]]


def paper_table(
    query: Query,
    status: Status,
    lines: Sequence[Line],
    asked: Sequence[tuple[str, ...]],
    epsilon: float,
    preset: str,
) -> PaperTable:
    """The scores of `lines` at an epsilon, with those of `asked`, which grids ask for, that have no line yet."""
    curves = {curve.line: curve for curve in query.curves(lines)}
    found: _Found = {}
    names: _Names = {}
    for line in lines:
        curve = curves.get(line.number)
        point = curve.at(epsilon) if curve else None
        row = row_of(line.asked)
        names.setdefault(row, _names(query, line))
        state, reason = ("", "") if point else status.worst(line.asked, epsilon)
        score = Score(curve=curve if point else None, point=point, state=state, reason=reason)
        found.setdefault(row, {})[query.index.labels.of(line, "rule")] = score
    _add_asked(status, {line.asked for line in lines}, asked, epsilon, found, names)
    rules = tuple(sorted({rule for row in found.values() for rule in row} | set(_paper_rules(preset)), key=_rank))
    comparisons = _mark_best(query, epsilon, found)
    rows = [Row(names=names[row], scores=_with_printed(rules, preset, row, scores)) for row, scores in found.items()]
    there = {(row_value(row, "backbone"), row_value(row, "dataset")) for row in found}
    return PaperTable(rules=rules, rows=(*rows, *_paper_only(preset, rules, there)), family=comparisons)


def _add_asked(
    status: Status,
    known: set[tuple[str, ...]],
    asked: Sequence[tuple[str, ...]],
    epsilon: float,
    found: _Found,
    names: _Names,
) -> None:
    """What grids ask for at this epsilon and no result is there of."""
    for line in asked:
        if line in known or not status.wants(line, epsilon):
            continue
        row, rule = row_of(line), asked_value(line, "rule")
        backbone, dataset, attack, gradient = (row_value(row, n) for n in ("backbone", "dataset", "attack", "gradient"))
        names.setdefault(row, (backbone, dataset, attack, gradient))
        state, reason = status.worst(line, epsilon)
        found.setdefault(row, {}).setdefault(rule, Score(state=state, reason=reason))


def _mark_best(query: Query, epsilon: float, found: _Found) -> int:
    """Mark what is best of its row after Holm over all rows; the number of comparisons."""
    comparisons = {}
    for row, scores in found.items():
        there = sorted((s.point.score.value, rule) for rule, s in scores.items() if s.point is not None)
        if len(there) < 2:
            continue
        curves = [scores[rule].curve for _, rule in there[:-3:-1]]
        first, second = (query.index.lines[curve.line] for curve in curves if curve is not None)
        both = query.pair(first, second, epsilon)
        if both is not None:
            comparisons[row, there[-1][1]] = gap(*both)
    for row, rule in holm(comparisons):
        found[row][rule] = dataclasses.replace(found[row][rule], best=True)
    return len(comparisons)


def _with_printed(
    rules: Sequence[str], preset: str, row: tuple[str, ...], scores: Mapping[str, Score]
) -> dict[str, Score]:
    place = (preset, row_value(row, "backbone"), row_value(row, "dataset"))
    return {
        rule: dataclasses.replace(scores.get(rule, Score()), printed=printed().get((*place, rule.partition("(")[0])))
        for rule in rules
    }


def _paper_only(preset: str, rules: Sequence[str], there: set[tuple[str, str]]) -> list[Row]:
    """The paper's rows that no grid of the store asks for."""
    places = dict.fromkeys((p[1], p[2]) for p in printed() if p[0] == preset and (p[1], p[2]) not in there)
    return [
        Row(
            names=(backbone, dataset, "", ""),
            scores={rule: Score(printed=printed().get((preset, backbone, dataset, rule))) for rule in rules},
        )
        for backbone, dataset in places
    ]


def _paper_rules(preset: str) -> tuple[str, ...]:
    return PAPER_RULES if preset in {place[0] for place in printed()} else ()


def _names(query: Query, line: Line) -> tuple[str, str, str, str]:
    backbone, _, dataset = query.index.labels.title(line).partition(" / ")
    return backbone, dataset, query.index.labels.of(line, "attack"), line.gradient


def _rank(rule: str) -> tuple[int, int, str]:
    base = rule.partition("(")[0]
    return (
        PAPER_RULES.index(base) if base in PAPER_RULES else len(PAPER_RULES),
        members.place("rule", base)[0],
        style.label(rule),
    )

"""Tables in the layout of the paper: models down, rules across, one score in each cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.results import members
from orchestrator.results.curve import Point
from orchestrator.results.labels import Labels, gradient
from orchestrator.results.line import Line, planned_line, row_key, row_value
from orchestrator.results.paper_values import Printed, printed
from orchestrator.results.query import Query
from orchestrator.results.scores import best, points_at
from orchestrator.results.status import State, Status

#: Rules of the paper's tables, in its order; others follow.
PAPER_RULES = ("bp", "usf", "frsf", "brsf")
_DECISION = ("hopskipjump", "boundary")
_LOST = "top-1 under a decision-based attack (the paper's caption does not say whether HopSkipJump or Boundary)"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A table: its task and its attacks; an empty tuple stands for all attacks of the filter."""

    title: str
    task: str = ""
    attacks: tuple[str, ...] = ()


PRESETS = {
    "1": Preset(title="Table 1: clean top-1 of classification", task="classification", attacks=("none",)),
    "2": Preset(title="Table 2: clean mAP@k of hashing retrieval", task="hashing", attacks=("none",)),
    "3": Preset(title=f"Table 3: {_LOST}", task="classification", attacks=_DECISION),
    "4": Preset(title=f"Table 4: {_LOST}", task="classification", attacks=_DECISION),
    "all": Preset(title="Every attack"),
    "worst": Preset(title="Clean score and worst case over attacks"),
    "corruptions": Preset(title="Under natural corruptions"),
}


def preset_of(name: str, task: str) -> str:
    """The name of the chosen table; by default the clean scores of the task."""
    return name or next((known for known, preset in PRESETS.items() if preset.task == task), "all")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableCell:
    """One cell of a table. `state` is "" where there is a score."""

    line: Line | None = None
    point: Point | None = None
    state: State | str = "not run"
    reason: str = ""
    printed: Printed | None = None
    #: Whether it is the highest of its row, and no gap to the runner-up includes zero after Holm.
    best: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class TableRow:
    """One row: its names, and a score for each rule."""

    #: Backbone, data set, attack and gradient, as people read them.
    names: tuple[str, str, str, str]
    scores: Mapping[str, TableCell]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PaperTable:
    """A table with its rules, and over how many comparisons "best" was corrected."""

    rules: tuple[str, ...]
    rows: tuple[TableRow, ...]
    family: int
    #: Rows of the paper that are left out, since the store has nothing of them.
    absent: int


#: The scores of each row, by rule; rows by their row key (see `row_key`).
_Scores = dict[tuple[str, ...], dict[str, TableCell]]
_Names = dict[tuple[str, ...], tuple[str, str, str, str]]


def paper_table(
    query: Query,
    status: Status,
    lines: Sequence[Line],
    planned: Sequence[tuple[str, ...]],
    epsilon: float,
    preset: str,
    whole: bool,
) -> PaperTable:
    """The scores of `lines` at an epsilon, with the state of `planned` lines that have no result yet.

    A `whole` table has the paper's other rows too, and its rules; else those that the store has something of.
    """
    points, lacking = points_at(query, lines, epsilon)
    by_row: _Scores = {}
    names: _Names = {}
    known = {line.grid_key for line in lines}
    only_planned = [planned_line(key) for key in planned if key not in known and status.wants(key, epsilon)]
    # By what is planned too: two rules or models that failed may differ in what all that have results share.
    labels = Labels(only_planned, query.index.labels) if only_planned else query.index.labels
    for line in lines:
        row, point = row_key(line.grid_key), points.get(line.number)
        names.setdefault(row, _names(labels, line))
        state, reason = ("", "") if point else lacking.get(line.number) or status.worst(line.grid_key, epsilon)
        score = TableCell(line=line, point=point, state=state, reason=reason)
        by_row.setdefault(row, {})[labels.of(line, "rule")] = score
    for line in only_planned:
        row = row_key(line.grid_key)
        names.setdefault(row, _names(labels, line))
        state, reason = status.worst(line.grid_key, epsilon)
        by_row.setdefault(row, {})[labels.of(line, "rule")] = TableCell(state=state, reason=reason)
    absent = _absent(preset, by_row)
    of_paper = whole or len(absent) < len(_places(preset))
    rules = {rule for row in by_row.values() for rule in row} | set(PAPER_RULES if of_paper and _places(preset) else ())
    columns = tuple(sorted(rules, key=_rank))
    comparisons = _mark_best(query, epsilon, by_row)
    rows = [
        TableRow(names=names[row], scores=_with_printed(columns, preset, row, scores)) for row, scores in by_row.items()
    ]
    rows += [_paper_only(preset, columns, place) for place in absent] if whole else []
    return PaperTable(rules=columns, rows=tuple(rows), family=comparisons, absent=0 if whole else len(absent))


def _mark_best(query: Query, epsilon: float, by_row: _Scores) -> int:
    """Mark the best score of each row, after Holm's correction over all rows; the number of comparisons."""
    pairs = {}
    for row, scores in by_row.items():
        ranked = sorted((s.point.score.value, rule, s.line) for rule, s in scores.items() if s.point and s.line)
        if len(ranked) > 1:
            pairs[row, ranked[-1][1]] = ranked[-1][2], ranked[-2][2]
    clear, compared = best(query, pairs, epsilon)
    for row, rule in clear:
        by_row[row][rule] = dataclasses.replace(by_row[row][rule], best=True)
    return compared


def _with_printed(
    rules: Sequence[str], preset: str, row: tuple[str, ...], scores: Mapping[str, TableCell]
) -> dict[str, TableCell]:
    place = (preset, row_value(row, "backbone"), row_value(row, "dataset"))
    return {
        rule: dataclasses.replace(
            scores.get(rule, TableCell()), printed=printed().get((*place, rule.partition("(")[0]))
        )
        for rule in rules
    }


def _places(preset: str) -> list[tuple[str, str]]:
    """Backbone and data set of each row of a table as the paper prints it."""
    return list(dict.fromkeys((backbone, dataset) for table, backbone, dataset, _ in printed() if table == preset))


def _absent(preset: str, by_row: _Scores) -> list[tuple[str, str]]:
    """Those that the store has neither run nor planned."""
    models = {(row_value(row, "backbone"), row_value(row, "dataset")) for row in by_row}
    return [place for place in _places(preset) if place not in models]


def _paper_only(preset: str, rules: Sequence[str], place: tuple[str, str]) -> TableRow:
    """A row of the paper that no grid of the store plans."""
    scores = {rule: TableCell(printed=printed().get((preset, *place, rule))) for rule in rules}
    return TableRow(names=(*place, "", ""), scores=scores)


def _names(labels: Labels, line: Line) -> tuple[str, str, str, str]:
    backbone, _, dataset = labels.title(line).partition(" / ")
    return backbone, dataset, labels.of(line, "attack"), gradient(line)


def _rank(rule: str) -> tuple[int, int, str]:
    base = rule.partition("(")[0]
    return (
        PAPER_RULES.index(base) if base in PAPER_RULES else len(PAPER_RULES),
        members.rank("rule", base)[0],
        style.label(rule),
    )

"""Tables as the paper has them: models down, rules across, one score in each cell."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from orchestrator.explorer import style
from orchestrator.explorer.holm import holm
from orchestrator.explorer.index import LINE, Line
from orchestrator.explorer.printed import Printed, printed
from orchestrator.explorer.query import Curve, Point, Query
from orchestrator.explorer.status import Asked, Status
from signsym_core.rules import RULES
from signsym_core.stats import gap

#: Rules of the paper's tables, in its order; others follow.
PAPER_RULES = ("bp", "usf", "frsf", "brsf")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preset:
    """A table: its task, and its attack or None for every attack that is chosen."""

    name: str
    title: str
    task: str
    attack: str | None


PRESETS = {
    "1": Preset(name="1", title="Table 1: clean top-1 of classification", task="classification", attack="none"),
    "2": Preset(name="2", title="Table 2: clean mAP of hashing retrieval", task="hashing", attack="none"),
    "3": Preset(name="3", title="Table 3: top-1 under HopSkipJump", task="classification", attack="hopskipjump"),
    "4": Preset(name="4", title="Table 4: top-1 under Boundary", task="classification", attack="boundary"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Score:
    """One cell of a table. `state` is "" where there is a score."""

    curve: Curve | None
    point: Point | None
    state: str
    reason: str
    printed: Printed | None
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


def paper_table(query: Query, status: Status, lines: Sequence[Line], epsilon: float, preset: str) -> PaperTable:
    """The scores of `lines` at an epsilon, with what was asked for and is not there, and what the paper prints."""
    curves = {curve.line: curve for curve in query.curves(lines)}
    found: dict[tuple[str, ...], dict[str, Score]] = {}
    names: dict[tuple[str, ...], tuple[str, str, str, str]] = {}
    for line in lines:
        curve = curves.get(line.number)
        point = curve.at(epsilon) if curve else None
        rule, row = query.index.label(line, "rule"), _row(line.key)
        names.setdefault(row, _names(query, line))
        state = ("", "") if point else _absent(status, line.asked, epsilon)
        score = Score(
            curve=curve if point else None, point=point, state=state[0], reason=state[1],
            printed=printed().get((preset, line.backbone, line.dataset, line.rule)),
        )  # fmt: skip
        found.setdefault(row, {})[rule] = score
    _add_asked(query, status, lines, epsilon, preset, found)
    rules = sorted({rule for row in found.values() for rule in row}, key=_rank)
    comparisons = {}
    for row, scores in found.items():
        pair = _best_two(scores)
        if pair is not None:
            first, second = (query.index.lines[scores[rule].curve.line] for rule in pair)  # type: ignore[union-attr]
            both = query.pair(first, second, epsilon)
            if both is not None:
                comparisons[row, pair[0]] = lambda confidence, both=both: gap(*both, confidence=confidence)
    for row, rule in holm(comparisons):
        found[row][rule] = dataclasses.replace(found[row][rule], best=True)
    missing = Score(curve=None, point=None, state="not run", reason="", printed=None)
    rows = [
        Row(names=names[row], scores={rule: scores.get(rule, _printed_only(missing, preset, row, rule)) for rule in rules})
        for row, scores in found.items()
    ]
    return PaperTable(rules=tuple(rules), rows=tuple(rows), family=len(comparisons))


def _add_asked(
    query: Query,
    status: Status,
    lines: Sequence[Line],
    epsilon: float,
    preset: str,
    found: dict[tuple[str, ...], dict[str, Score]],
) -> None:
    """Rules that a grid asks for beside those with a line, in rows that are there."""
    at = {name: place for place, name in enumerate(name for name in LINE if name != "metric")}
    known = {line.asked for line in lines}
    rows = {_row(line.key)[:-1] + (line.metric,): _row(line.key) for line in lines}
    for asked in status.asked():
        key = asked.line
        metric = "map" if key[at["task"]] == "hashing" else "top1"
        row = rows.get(_row((*key[: LINE.index("metric")], metric, *key[LINE.index("metric") :]))[:-1] + (metric,))
        if row is None or key in known or not any(value == epsilon for _, value, _ in asked.cells):
            continue
        rule = key[at["rule"]]
        state, reason = status.state(asked)
        place = printed().get((preset, key[at["backbone"]], key[at["dataset"]], rule))
        score = Score(curve=None, point=None, state=state, reason=reason, printed=place)
        if rule not in found[row] or found[row][rule].state == "not run":
            found[row][rule] = score


def _absent(status: Status, asked: tuple[str, ...], epsilon: float) -> tuple[str, str]:
    """What became of a cell without a result: the worst that became of any of its seeds."""
    states = [status.state(a) for a in status.asked() if a.line == asked and _wants(a, epsilon)]
    ranked = sorted(states, key=lambda state: ("failed", "running", "not run").index(state[0]))
    return ranked[0] if ranked else ("not run", "")


def _wants(asked: Asked, epsilon: float) -> bool:
    return any(value == epsilon for _, value, _ in asked.cells)


def _row(key: tuple[str, ...]) -> tuple[str, ...]:
    """A line's key without its rule: what shares a row."""
    return tuple(value for name, value in zip(LINE, key, strict=True) if name not in ("rule", "rule_params"))


def _names(query: Query, line: Line) -> tuple[str, str, str, str]:
    backbone, _, dataset = query.index.title(line).partition(" / ")
    return backbone, dataset, query.index.label(line, "attack"), line.gradient


def _best_two(scores: Mapping[str, Score]) -> tuple[str, str] | None:
    there = [(score.point.score.value, rule) for rule, score in scores.items() if score.point is not None]
    if len(there) < 2:
        return None
    first, second = sorted(there, reverse=True)[:2]
    return first[1], second[1]


def _printed_only(missing: Score, preset: str, row: tuple[str, ...], rule: str) -> Score:
    place = (preset, row[LINE.index("backbone")], row[LINE.index("dataset")], rule)
    return dataclasses.replace(missing, printed=printed().get(place))


def _rank(rule: str) -> tuple[int, int, str]:
    base = rule.partition("(")[0]
    return (
        PAPER_RULES.index(base) if base in PAPER_RULES else len(PAPER_RULES),
        RULES.names.index(base) if base in RULES else len(RULES),
        style.label(rule),
    )

"""Tidy tables of what is computed from stores that are looked at together: a row for each observation."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import pyarrow as pa

from orchestrator.jobs.surrogates import surrogate_of
from orchestrator.results.calibration import calibrations
from orchestrator.results.corruption_rows import corruption_rows
from orchestrator.results.devices import WAYS
from orchestrator.results.geometry import geometries, measured_lines
from orchestrator.results.line import ATTACK, STORED, Line
from orchestrator.results.live_stores import Results
from orchestrator.results.query import Query
from orchestrator.results.test_images import on_clean_images, test_images
from orchestrator.results.transfer import clean_line
from orchestrator.store.tables import MEASURES
from signsym_core.statistics.intervals import Interval
from signsym_core.statistics.ratios import Ratio

_ENDS = {"": "value", "_lo": "lo", "_hi": "hi"}


def _curves(data: Results) -> Iterator[dict[str, Any]]:
    """A row for each point of each line, over all seeds, with its interval and its paired gap to BP.

    The optimality of a line's attack is repeated at each of its points.
    """
    query = data.snapshot.query()
    curves = query.curves(query.index.ordered)
    lines = [query.index.lines[curve.line] for curve in curves]
    optimalities = data.snapshot.computed().optimalities.of(lines)
    for curve, line, optimality in zip(curves, lines, optimalities, strict=True):
        names = {name: getattr(line, name) for name in STORED} | {"score": curve.score_name, "norm": curve.norm}
        names |= {"optimality": optimality}
        for point in curve.points:
            row = names | {"epsilon": point.epsilon, "epsilon_label": point.label} | _score(point.score)
            row |= _with_basis("gap_to_bp", point.over_bp) | _with_basis("over_exact", point.over_exact)
            yield row | _origin(data, query, [line], point.epsilon)


def _worst(data: Results) -> Iterator[dict[str, Any]]:
    """A row for each model, norm and ε: its worst case over all attacks in the store, over all seeds."""
    query = data.snapshot.query()
    for worst_line in data.snapshot.computed().worst_cases.of(line.figure for line in query.index.ordered):
        names = {name: getattr(worst_line.line, name) for name in STORED if name not in ATTACK}
        names |= {"score": worst_line.curve.score_name, "norm": worst_line.curve.norm}
        for worst in (worst_line.points[epsilon] for epsilon in sorted(worst_line.points)):
            point = worst.point
            row = names | {"epsilon": point.epsilon, "epsilon_label": point.label} | _score(point.score)
            row |= _with_basis("gap_to_bp", point.over_bp) | _with_basis("feedback_gap_to_bp", worst.feedback)
            row |= {"excludes_zero": worst.clear, "feedback_excludes_zero": worst.feedback_clear}
            row |= {"comparisons": worst_line.family, "strongest": point.runs[0], "runs": ", ".join(point.runs)}
            row |= {"without_counterpart": ", ".join(worst.unmatched), "conclusive": worst.conclusive}
            yield row | _origin(data, query, worst.lines, point.epsilon)


def _transfer(data: Results) -> Iterator[dict[str, Any]]:
    """A row for each surrogate, attacked model and ε of the transfer attacks, beside the model's clean score."""
    query = data.snapshot.query()
    index = query.index
    curves = {curve.line: curve for curve in query.curves(index.ordered)}
    for line in index.ordered:
        if not line.transfers or line.number not in curves:
            continue
        curve, clean = curves[line.number], clean_line(index, line)
        surrogate = surrogate_of(line.gradient)
        names = {name: getattr(line, name) for name in STORED}
        names |= {"surrogate_rule": surrogate.rule, "surrogate_rule_params": surrogate.parameters}
        names |= {"surrogate_seed": "other" if surrogate.other_seed else "same"}
        names |= {"white_box": line.attacks_itself, "score": curve.score_name, "norm": curve.norm}
        unattacked = None if clean is None or clean.number not in curves else curves[clean.number].points[0].score
        for point in curve.points:
            row = names | {"epsilon": point.epsilon, "epsilon_label": point.label} | _score(point.score)
            row |= _with_basis("clean", unattacked)
            yield row | _origin(data, query, [line], point.epsilon)


def _geometry(data: Results) -> Iterator[dict[str, Any]]:
    """A row for each model, source of gradient and ε that the attack geometry measured, over all seeds."""
    query = data.snapshot.query()
    for one in geometries(query, data.cells, measured_lines(query.index, query.index.ordered)):
        row = {name: getattr(one.line, name) for name in STORED}
        row |= {"epsilon": one.epsilon, "epsilon_label": one.label}
        for name in (*MEASURES, "predicted"):
            row |= _with_ends(name, one.predicted if name == "predicted" else one.means.get(name))
        basis = max(one.means.values(), key=lambda number: number.n)
        row |= {"method": basis.method, "images": basis.n, "seeds": basis.seeds}
        yield row | _origin(data, query, [one.line], one.epsilon)


def _calibration(data: Results) -> Iterator[dict[str, Any]]:
    """A row for each model and set of its test images, clean or corrupted, over all seeds."""
    query = data.snapshot.query()
    for one in calibrations(query, data.cells, query.index.chosen(clean=True)):
        images = test_images(one.line.dataset_params)
        row = {name: getattr(on_clean_images(one.line), name) for name in STORED if name not in ATTACK}
        row |= {"corruption": images.kind or "none", "severity": images.severity} | _score(one.accuracy)
        row |= {"ece_by_chance": one.by_chance} | _with_ends("ece", one.ece)
        # One seed has no interval.
        row |= {} if one.ece.seeds > 1 else {"ece_lo": None, "ece_hi": None}
        row |= _with_ends("confidence", one.confidence) | _with_ends("brier", one.brier)
        yield row | _origin(data, query, [one.line], 0.0)


def _corruptions(data: Results) -> Iterator[dict[str, Any]]:
    """A row for each model and corrupted set of test images, and for their means, over all seeds."""
    query = data.snapshot.query()
    clean = (on_clean_images(line) for line in query.index.ordered if test_images(line.dataset_params).kind)
    for model in data.snapshot.computed().corruptions.of(line.figure for line in clean):
        names = {name: getattr(model.line, name) for name in STORED if name not in ATTACK}
        origin = _origin(data, query, model.lines.values(), 0.0)
        for one in corruption_rows(model):
            row = names | {"corruption": one.kind or "mean", "severity": one.severity} | _score(one.score)
            row |= {"excludes_zero": one.clear} | _with_basis("gap_to_bp", one.gap)
            row |= _with_ends("ce", one.ce) | _with_ends("relative_ce", one.relative)
            yield row | origin


def _notes(data: Results) -> Iterator[dict[str, Any]]:
    """A row for each note that was not withdrawn."""
    for store, note in data.notes:
        yield dataclasses.asdict(note) | ({"store": store} if store else {})


#: What is read from stores that are looked at together.
COMPUTED: Mapping[str, Callable[[Results], Iterator[dict[str, Any]]]] = {
    "curves": _curves,
    "worst": _worst,
    "transfer": _transfer,
    "geometry": _geometry,
    "calibration": _calibration,
    "corruptions": _corruptions,
    "notes": _notes,
}
#: Lines that are left out and named, at most.
MOST = 5


def computed_table(data: Results, what: str) -> Iterator[pa.Table]:
    """A table of COMPUTED, or nothing where it has no row; what may be null is a number even where it always is: nulls
    alone have no type.
    """
    if rows := list(COMPUTED[what](data)):
        table = pa.Table.from_pylist(rows)
        yield table.cast(pa.schema([pa.field(f.name, _MAYBE.get(f.name, f.type)) for f in table.schema]))


def left_out(data: Results, what: str) -> list[str]:
    """Why lines, and models of worst cases, are left out of a table: a sentence for each of the first MOST."""
    if what == "notes":
        return []
    query = data.snapshot.query()
    reasons = [reason for line in query.index.ordered if (reason := query.index.ambiguity(line))]
    if what == "worst":
        reasons += data.snapshot.computed().worst_cases.refused().values()
    different = list(dict.fromkeys(reasons))
    more = [f"{len(different) - MOST:,} more are left out likewise."] if len(different) > MOST else []
    return [f"Left out: {reason}." for reason in different[:MOST]] + more


_BESIDE = ("gap_to_bp", "feedback_gap_to_bp", "over_exact", "clean")
_NUMBERS = (*_BESIDE, "ce", "relative_ce", "ece", *MEASURES, "predicted")
#: Columns that may be null in every row.
_MAYBE = dict.fromkeys((f"{name}{end}" for name in _NUMBERS for end in _ENDS), pa.float64())
_MAYBE |= dict.fromkeys((f"{name}_{what}" for name in _BESIDE for what in ("images", "seeds")), pa.int64())
_MAYBE |= {"optimality": pa.float64(), "excludes_zero": pa.bool_()}


def _score(score: Interval) -> dict[str, Any]:
    """The columns of a score over all seeds."""
    numbers = {"value": score.value, "lo": score.lo, "hi": score.hi, "method": score.method}
    return numbers | {"images": score.n, "seeds": score.seeds}


def _with_ends(name: str, number: Interval | Ratio | None) -> dict[str, float | None]:
    """The columns of a number and the ends of its interval; nulls where there is none."""
    return {f"{name}{end}": getattr(number, field, None) for end, field in _ENDS.items()}


def _with_basis(name: str, number: Interval | None) -> dict[str, float | None]:
    """The columns of `_with_ends`, and what the number rests on: the score beside it may rest on more."""
    basis = {f"{name}_images": getattr(number, "n", None), f"{name}_seeds": getattr(number, "seeds", None)}
    return _with_ends(name, number) | basis


def _origin(data: Results, query: Query, lines: Iterable[Line], epsilon: float) -> dict[str, str]:
    """How the models of the rows of lines at an epsilon were fine-tuned and attacked, each way that there is, and the
    stores that the rows are from; no column of stores where one is looked at.
    """
    rows = np.array([row for line in lines for row in query.rows_by_seed(line, epsilon).values()], dtype=np.int64)
    columns = {
        what.replace("-", "_"): ", ".join(filter(None, query.index.ways[prefix].distinct(rows)))
        for prefix, what in WAYS.items()
    }
    stores = dict.fromkeys(data.store_of(query.index, row) for row in rows.tolist()) if data.names else ()
    return columns | ({"store": ", ".join(stores)} if data.names else {})

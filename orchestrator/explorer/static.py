"""The report: one folder of static files that opens from disk and asks no other host for anything."""

from __future__ import annotations

import csv
import dataclasses
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
import plotly.graph_objects as go
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from plotly.offline import get_plotlyjs

from orchestrator.explorer import figures
from orchestrator.explorer.query import FEW_IMAGES, FEW_SEEDS, Curve, Point, clean_scores, curves
from signsym_core.stats import Interval

#: Columns of curves.csv.
_CSV = (
    *("model", "attack", "gradient", "rule", "epsilon", "epsilon_label"),
    *("value", "lo", "hi", "method", "images", "seeds"),
    *("gap_to_bp", "gap_lo", "gap_hi", "over_exact", "over_exact_lo", "over_exact_hi", "reach"),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Picture:
    """A figure on the page with the table that says the same."""

    title: str
    #: What a reader who does not see the figure is told.
    description: str
    figure: Markup
    header: list[str]
    rows: list[list[str]]


def write_report(
    results: pd.DataFrame,
    outcomes: pd.DataFrame,
    out: Path,
    *,
    title: str,
    skipped: Sequence[str] = (),
    missing: int = 0,
    command: str = "",
) -> Path:
    """Write index.html, plotly.min.js, curves.csv and provenance.json to the folder `out`; the path of the page.

    `skipped` names files of the store that could not be read; `missing` is the number of cells without a result.
    Raises AmbiguousCurveError where the rows do not tell two results apart.
    """
    lines = curves(results, outcomes)
    environment = Environment(loader=PackageLoader("orchestrator.explorer"), autoescape=True, undefined=StrictUndefined)
    page = environment.get_template("report.html").render(
        title=title,
        findings=[found for pair in _shown_pairs(lines) for found in [_finding(*pair)] if found],
        pictures=[*_masking_pictures(lines), *_curve_pictures(lines)],
        clean=[(t, figures.label(rule), figures.percent(s), s) for t, rule, s in clean_scores(results, outcomes)],
        few_images=FEW_IMAGES,
        few_seeds=FEW_SEEDS,
        small=any(line.small for line in lines),
        skipped=list(skipped),
        missing=missing,
        cells=len(results),
        provenance=_provenance(results),
        command=command,
        config=_json(figures.GRAPH_CONFIG),
    )
    out.mkdir(parents=True, exist_ok=True)
    _write(out / "plotly.min.js", get_plotlyjs())
    _write(out / "curves.csv", _csv(lines))
    _write(out / "provenance.json", json.dumps(_provenance(results) | {"command": command}, indent=1))
    _write(out / "index.html", page)
    return out / "index.html"


def _by_figure(lines: Sequence[Curve]) -> dict[tuple[str, ...], list[Curve]]:
    found: dict[tuple[str, ...], list[Curve]] = {}
    for line in lines:
        found.setdefault(line.figure, []).append(line)
    return found


def _shown_pairs(lines: Sequence[Curve]) -> list[tuple[list[Curve], float]]:
    """For each figure the curves of its last attack with both gradients, and the epsilon to look at.

    That epsilon is the smallest at which the exact gradient leaves BP, or else the first rule, at most half of its
    images: where an attack is strong but not everything is lost, and chosen without looking at the feedback gradient.
    """
    pairs = []
    for group in _by_figure(lines).values():
        both = [
            attack
            for attack in dict.fromkeys(line.attack_label for line in group)
            if {"feedback", "exact"} <= {line.gradient for line in group if line.attack_label == attack}
        ]
        if not both:
            continue
        chosen = [line for line in group if line.attack_label == both[-1]]
        exact = [line for line in chosen if line.gradient == "exact"]
        reference = next((line for line in exact if line.rule == "bp"), exact[0])
        attacked = [point for point in reference.points if point.epsilon > 0]
        if attacked:
            halved = next((point for point in attacked if point.score.value <= 0.5), attacked[-1])
            pairs.append((chosen, halved.epsilon))
    return pairs


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Finding:
    """What the numbers say about the feedback gradient at one epsilon: an opening and a sentence for each rule."""

    opening: str
    rules: list[str]


def _finding(chosen: list[Curve], at: float) -> _Finding | None:
    exact_of = {line.rule_label: line for line in chosen if line.gradient == "exact"}
    sentences = []
    for line in chosen:
        other = exact_of.get(line.rule_label)
        if line.gradient != "feedback" or line.rule == "bp" or other is None:
            continue
        mine, theirs = _at(line, at), _at(other, at)
        if mine is not None and theirs is not None and mine.over_exact is not None:
            sentences.append(
                f"{figures.label(line.rule_label)}: {figures.percent(mine.score)} following its own feedback, "
                f"{figures.percent(theirs.score)} following the exact gradient of the same weights. "
                f"{_verdict(mine.over_exact)}"
            )
    if not sentences:
        return None
    bp = next((point for line in chosen if line.rule == "bp" for point in [_at(line, at)] if point), None)
    beside = f" BP keeps {figures.percent(bp.score)}." if bp is not None else ""
    return _Finding(
        opening=f"{chosen[0].title}, {chosen[0].attack_label} at ε = {_label(chosen, at)}.{beside}", rules=sentences
    )


def _verdict(over_exact: Interval) -> str:
    gap = f"{figures.points(over_exact)} points"
    if over_exact.lo > 0:
        return f"The difference of {gap} is gradient masking, not robustness."
    seeds = f"{over_exact.seeds} seed{'s' * (over_exact.seeds > 1)}"
    return f"The difference of {gap} does not exclude zero with {seeds}: undecided."


def _at(line: Curve, epsilon: float) -> Point | None:
    return next((point for point in line.points if point.epsilon == epsilon), None)


def _masking_pictures(lines: Sequence[Curve]) -> list[_Picture]:
    made = []
    for chosen, at in _shown_pairs(lines):
        pairs = [line for line in chosen if line.gradient == "feedback"]
        rows = [
            [
                figures.label(line.rule_label),
                point.label,
                figures.percent(point.score),
                figures.points(point.over_exact),
            ]
            for line in pairs
            for point in line.points
            if point.over_exact is not None
        ]
        heading = f"{chosen[0].title}: {chosen[0].attack_label} by gradient, at ε = {_label(chosen, at)} and over ε"
        described = f"Robust accuracy of {len(pairs)} rules under their own feedback and under the exact gradient."
        header = ["rule", "ε", "own feedback", "feedback minus exact, points"]
        figure = _json(figures.masking_figure(chosen, at))
        made.append(_Picture(title=heading, description=described, figure=figure, header=header, rows=rows))
    return made


def _curve_pictures(lines: Sequence[Curve]) -> list[_Picture]:
    made = []
    for group in _by_figure(lines).values():
        rows = [
            [
                line.attack_label,
                line.gradient,
                figures.label(line.rule_label),
                point.label,
                figures.percent(point.score),
                f"{point.score.n:,}",
                ", ".join(f"{seed}: {100 * value:.1f}" for seed, value in point.by_seed.items()),
                figures.points(point.over_bp) if point.over_bp else "",
            ]
            for line in group
            for point in line.points
        ]
        rules = ", ".join(dict.fromkeys(figures.label(line.rule_label) for line in group))
        attacks = ", ".join(dict.fromkeys(line.attack_label for line in group))
        header = ["attack", "gradient", "rule", "ε", "robust [95 %]", "images", "each seed, %", "gap to BP, points"]
        made.append(
            _Picture(
                title=f"{group[0].title}: robust accuracy over ε",
                description=f"Robust accuracy against epsilon of {rules} under {attacks}, by source of gradient.",
                figure=_json(figures.curve_figure(group)),
                header=header,
                rows=rows,
            )
        )
    return made


def _label(lines: Sequence[Curve], epsilon: float) -> str:
    return next(point.label for line in lines for point in line.points if point.epsilon == epsilon)


def _csv(lines: Sequence[Curve]) -> str:
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow(_CSV)
    for line in lines:
        for point in line.points:
            score = point.score
            gaps = [
                value
                for gap in (point.over_bp, point.over_exact)
                for value in ((gap.value, gap.lo, gap.hi) if gap is not None else ("", "", ""))
            ]
            names = (line.title, line.attack_label, line.gradient, line.rule_label, point.epsilon, point.label)
            numbers = (score.value, score.lo, score.hi, score.method, score.n, score.seeds)
            writer.writerow([*names, *numbers, *gaps, point.reach])
    return sink.getvalue()


def _provenance(results: pd.DataFrame) -> dict[str, Any]:
    def distinct(column: str) -> list[str]:
        return sorted(str(value) for value in results[column].dropna().unique())

    return {
        "cells": len(results),
        "git": distinct("git"),
        "versions": distinct("versions"),
        "devices": distinct("device"),
        "fine_tunes": int(results["finetune_job"].nunique()),
        "attack_jobs": int(results["job"].nunique()),
        "last_result": str(results["finished_at"].max()) if len(results) else "",
    }


def _json(value: go.Figure | dict[str, Any]) -> Markup:
    """JSON that may stand inside a script element, whatever names it holds."""
    text = value.to_json() if isinstance(value, go.Figure) else json.dumps(value)
    for sign in "<>&\u2028\u2029":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _write(path: Path, text: str) -> None:
    temporary = path.with_name(f".{path.name}.tmp")
    temporary.write_text(text, encoding="utf-8")
    temporary.replace(path)

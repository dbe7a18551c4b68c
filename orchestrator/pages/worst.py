"""The worst case over attacks, over ε for each rule."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence, Set

import numpy as np

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Page, Table, Value, Words
from orchestrator.drawing.facets import portion
from orchestrator.drawing.figure_data import of_curves
from orchestrator.drawing.figures import curve_figure
from orchestrator.pages.columns import (
    GAP,
    HOLM,
    RUNS,
    SCORE,
    STORE,
    WORST,
    described,
    excludes,
    gap_of,
    score_of,
    texts,
    worst_of,
)
from orchestrator.pages.context import PageContext
from orchestrator.results.curve import Curve
from orchestrator.results.line import Line
from orchestrator.results.members import measuring
from orchestrator.results.worst_lines import WorstLine, WorstPoint

_COLUMNS = (
    *WORST,
    *SCORE,
    *texts(by_seed="each seed, %"),
    *GAP,
    *HOLM,
    *RUNS,
)
#: Panels of one portion, and of one row, at most.
MOST, WIDEST = 18, 3
#: A figure and a norm.
Place = tuple[tuple[str, ...], str]


def page(context: PageContext) -> Page:
    """A panel for each figure and norm that the filters choose."""
    view, models = context.view, models_by_place(context, attacked(context))
    number, portions, shown = portion(view.portion, list(models), MOST)
    worst = worst_lines(context, {place: models[place] for place in shown})
    if not worst:
        return context.nothing("Curves")
    several = len({norm for _, norm in models}) > 1
    panels: dict[str, list[Curve]] = {}
    for worst_line in worst:
        norm = f", {style.norm(worst_line.curve.norm)}" * several
        panels.setdefault(f"{worst_line.curve.title} / worst case over attacks{norm}", []).append(worst_line.curve)
    score = style.heading(style.scores(worst_line.curve.score_name for worst_line in worst))
    title = f"{score} over ε, in the worst case over {over(context)}"
    columns = min(len(panels), WIDEST)
    figure_block = Figure(
        name="curves",
        title=title,
        described=described(title, [worst_line.curve for worst_line in worst]),
        figure=curve_figure(list(panels.items()), columns, view.x, view.seed_lines, hide=view.hide),
        table=_table(context, worst),
        drawing=of_curves(list(panels.items()), columns, hide=view.hide),
    )
    turning = context.turning(number, portions, len(shown), len(models), "panels")
    return context.finished("Curves", [*turning, figure_block, Words(title="How to read", sentences=READING)])


def portions(context: PageContext) -> int:
    """Number of portions of the page."""
    return portion(1, list(models_by_place(context, attacked(context))), MOST)[1]


READING = (
    "Worst case: an image counts as robust only where it is robust under every run in the store of an attack on its "
    "model, in this norm at this ε, along whatever gradient, noise too, but not geometry and smoothing, which measure; "
    "of a query the lowest AP counts. It is over the seeds and images that all of these runs have; n says how many. "
    "The text over a point and the table name the runs, the strongest first. A hollow marker: other ε have more runs, "
    "and where the curve rises there it may be for want of them.",
    "A gap to BP is of the two worst cases, paired by image and seed, over the same attacks on both. Where these "
    "differ there is none, and the table names the runs without a counterpart; of BP one source of gradient is as good "
    "as another. Holm's correction is over every rule and ε of the panel. Attacks and seeds of the filter change the "
    "numbers, rules, gradients and grids do not.",
)


def over(context: PageContext) -> str:
    """What a worst case of this view is over, in words."""
    chosen = [attack for attack in context.view.attack if not measuring(attack)]
    return f"{', '.join(chosen)} alone, as the filter chooses" if chosen else "all attacks in the store"


def attacked(context: PageContext) -> list[Line]:
    """The lines under attack that the filters choose, along whatever gradient: a worst case is over all."""
    return dataclasses.replace(context, view=dataclasses.replace(context.view, gradient=())).attacking()


def models_by_place(context: PageContext, lines: Sequence[Line]) -> dict[Place, set[tuple[str, ...]]]:
    """The models of some lines by their figure and the norms of their attacks, but of those that only measure."""
    lines = [line for line in lines if not measuring(line.attack)]
    norms = context.index.texts("norm", np.array([line.start for line in lines], dtype=np.int64))
    models: dict[Place, set[tuple[str, ...]]] = {}
    for line, norm in zip(lines, norms, strict=True):
        models.setdefault((line.figure, norm), set()).add(line.model)
    return models


def worst_lines(context: PageContext, models: Mapping[Place, set[tuple[str, ...]]]) -> list[WorstLine]:
    """The worst cases of some models; those without one are reported on the page."""
    worst = context.computed.worst_cases.of([figure for figure, _ in models], context.view.attack)
    report_refused(context, {name for of_place in models.values() for name in of_place})
    return [
        worst_line
        for worst_line in worst
        if worst_line.line.model in models.get((worst_line.line.figure, worst_line.curve.norm), ())
    ]


def report_refused(context: PageContext, names: Set[tuple[str, ...]]) -> None:
    """Say on the page which of some models have no worst case, and why."""
    refused = context.computed.worst_cases.refused(context.view.attack)
    labels, known = context.labels, context.index.models
    for name in sorted(names & set(refused)):
        line = known[name][0]
        where = f"{style.label(labels.of(line, 'rule'))} on {labels.title(line)}"
        problem = f"No worst case of {where}: {refused[name]}."
        context.problems += [] if problem in context.problems else [problem]


def _table(context: PageContext, worst: Sequence[WorstLine]) -> Table:
    several = bool(context.data.names)
    rows = []
    for worst_line in worst:
        for point in sorted(worst_line.points.values(), key=lambda point: point.point.epsilon):
            rows.append(_row(worst_line, point))
            if several:
                rows_of_runs = [
                    row
                    for line in point.lines
                    for row in context.query.rows_by_seed(line, point.point.epsilon).values()
                ]
                rows[-1] = {**rows[-1], "store": context.stores(rows_of_runs)}
    columns = (*_COLUMNS, STORE) if several else _COLUMNS
    return Table(name="curves", columns=columns, rows=rows)


def _row(worst_line: WorstLine, worst: WorstPoint) -> Mapping[str, Value]:
    point = worst.point
    row = worst_of(worst_line.curve, worst) | score_of(point.score)
    row["by_seed"] = ", ".join(f"{seed}: {100 * value:.1f}" for seed, value in point.by_seed.items())
    if point.over_bp is not None:
        row |= gap_of(point.over_bp) | {"clear": excludes(worst.clear), "family": worst_line.family}
    return row

"""Score over epsilon for each rule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Page, Table, Value, Words
from orchestrator.drawing.facets import arranged
from orchestrator.drawing.figure_data import of_curves
from orchestrator.drawing.figures import Rings, curve_figure
from orchestrator.pages import worst
from orchestrator.pages.columns import GAP, POINT, SCORE, STORE, gap_of, point_of, score_of, texts
from orchestrator.pages.context import PageContext
from orchestrator.results.curve import Curve

COLUMNS = (*POINT, *SCORE, *texts(by_seed="each seed, %"), *GAP, *texts(flags="flags"))


def page(context: PageContext) -> Page:
    """The panels that the filters choose."""
    view = context.view
    if view.over == "worst":
        return worst.page(context)
    lines = context.lines()
    facets = arranged(view, context.index, lines)
    shown = {curve.line: curve for curve in context.curves(line for panel in facets.panels for line in panel.lines)}
    panels = [
        (panel.name, [shown[line.number] for line in panel.lines if line.number in shown]) for panel in facets.panels
    ]
    curves = [curve for _, members in panels for curve in members]
    if not curves:
        return context.nothing("Curves")
    rings = context.computed.flags.rings(curves)
    figure = Figure(
        name="curves",
        title=f"{style.heading(style.scores(curve.score_name for curve in curves))} over ε",
        described=described(curves),
        figure=curve_figure(panels, facets.columns, view.x, view.seed_lines, rings, view.hide),
        table=table(context, curves, rings),
        drawing=of_curves(panels, facets.columns, rings, view.hide),
    )
    return context.finished(
        "Curves", [*context.turning(*facets.turning, "panels"), figure, Words(title="How to read", sentences=READING)]
    )


READING = (
    "Bands are 95 % intervals: two-way over seeds and images, or, with one seed, Wilson's over images, which says "
    "nothing about other seeds. Short dashes are the seeds, or, of more than ten, a thin line from the lowest to the "
    "highest. An orange title says that images are below 1,000 or seeds below 3.",
    "Under “exact” the attack differentiates the network that it attacks: that is the result. Under “feedback” it "
    "follows the model's own backward pass; where that curve lies higher, the difference is gradient masking.",
    "Dotted: the best constant prediction, and ε = 8/255. A ring marks a point that a check of the Flags page raised. "
    "Click a point for its cell; click a rule in the legend to hide it in every panel. No number depends on what is "
    "shown.",
)


def described(curves: Sequence[Curve]) -> str:
    """The figure in a sentence."""
    rules = ", ".join(dict.fromkeys(style.label(curve.rule_label) for curve in curves))
    attacks = ", ".join(dict.fromkeys(curve.attack_label for curve in curves))
    places = ", ".join(dict.fromkeys(curve.title for curve in curves))
    what = style.heading(style.scores(curve.score_name for curve in curves))
    return f"{what} against epsilon of {rules} under {attacks} on {places}. The table below has the numbers."


def table(
    context: PageContext, curves: Sequence[Curve], rings: Rings, name: str = "curves", title: str = Table.title
) -> Table:
    """The points of curves; where there are several stores, with those that the results of a point are from."""
    rows: list[Mapping[str, Value]] = []
    lines, several = context.index.lines, bool(context.data.names)
    for curve in curves:
        for point in curve.points:
            rows.append(
                {
                    **point_of(curve, point.label),
                    **score_of(point.score),
                    "by_seed": ", ".join(f"{seed}: {100 * value:.1f}" for seed, value in point.by_seed.items()),
                    **gap_of(point.over_bp),
                    "flags": ", ".join(rings.get((curve.line, point.epsilon), ())),
                    "cell": point.cell,
                }
            )
            if several:
                by_seed = context.query.rows_by_seed(lines[curve.line], point.epsilon)
                rows[-1] = {**rows[-1], "store": context.stores(by_seed.values())}
    return Table(name=name, title=title, columns=(*COLUMNS, STORE) if several else COLUMNS, rows=rows)

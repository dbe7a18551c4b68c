"""Each rule minus BP, or the feedback gradient minus the exact one, paired by seed and image."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Figure, Link, Links, Page, Table, Words
from orchestrator.drawing.facets import Facets, arranged
from orchestrator.drawing.figure_data import of_gaps
from orchestrator.drawing.gap_figures import OVER, gap_figure, heat_figure
from orchestrator.pages import answers, geometry, transfer
from orchestrator.pages.alignment import survival
from orchestrator.pages.columns import BASIS, HOLM, POINT, described, excludes, point_of, points, score_of
from orchestrator.pages.context import PageContext
from orchestrator.pages.telling_epsilon import at_epsilon
from orchestrator.results.gaps import GapLine, gap_lines
from orchestrator.results.line import Line
from orchestrator.results.view import PageView

_COLUMNS = (
    *POINT,
    *points(gap="gap", lo="from", hi="to"),
    *HOLM,
    *BASIS,
)
#: Links to other epsilons, or to backbones, at most.
SHORTCUTS = 14
#: Lines of a heat map, which has no portions.
MOST = 600


def page(context: PageContext) -> Page:
    """Answers at one epsilon, and gaps over epsilon or as a heat map."""
    view, heat = context.view, context.view.form == "heat"
    lines = context.lines()
    if not lines:
        return context.nothing("Gap")
    epsilon, label, wrong = at_epsilon(context.query, lines, view.epsilon)
    if wrong:
        context.replace(wrong)
    members = compared(context)
    facets = None if heat else arranged(view, context.index, members)
    shown = members[:MOST] if facets is None else [line for panel in facets.panels for line in panel.lines]
    twin = context.query.exact if view.minus == "exact" else context.query.bp
    twins = {other.number: other for line in shown if (other := twin(line)) is not None}
    context.curves([*shown, *twins.values()])
    gaps = gap_lines(context.query, shown, view.minus)
    by_angle = survival(context, _beside(context, shown), epsilon, label)
    # Matrices are over all panels, so they stand with the first portion of them.
    by_surrogate = transfer.blocks(context, lines, epsilon, label) if view.portion == 1 else []
    around = geometry.blocks(context, lines, epsilon) if view.portion == 1 else []
    if not gaps:
        return context.finished("Gap", [_nothing(context), *by_angle, *around, *by_surrogate])
    title = f"Is a rule more robust than BP at ε = {label}?"
    blocks = [*answers.blocks(context, shown, epsilon, label, title), *_shortcuts(context, lines, label)]
    if facets is None:
        if len(members) > MOST:
            left = len(members) - MOST
            context.problems.append(f"The heat map has {MOST} lines and leaves out {left:,} more; narrow the filter.")
        blocks.append(_heat(gaps, epsilon, label, view.minus))
    else:
        blocks += [*context.turning(*facets.turning, "panels"), _over_epsilon(facets, gaps, view)]
    reading = Words(title="How to read", sentences=_READING)
    return context.finished("Gap", [*blocks, *by_angle, reading, *around, *by_surrogate])


def _shortcuts(context: PageContext, lines: Sequence[Line], label: str) -> list[Links]:
    """Links to the same comparison at another epsilon, or for one backbone."""
    view, index = context.view, context.index
    epsilons = [name for name, value in index.epsilons(lines).items() if value > 0]
    other_epsilons: list[tuple[str, dict[str, Any]]] = [
        (f"ε = {name}{' (this one)' * (name == label)}", {"epsilon": name}) for name in epsilons[:SHORTCUTS]
    ]
    about: list[tuple[str, dict[str, Any]]] = [("all backbones", {"backbone": ()})]
    if not view.backbone:
        about = [(name, {"backbone": (name,)}) for name in index.choices("backbone")[:SHORTCUTS]]
    link_rows = [
        ("Epsilon", other_epsilons, len(other_epsilons) > 1),
        ("Backbone", about, len(about) > 1 or bool(view.backbone)),
    ]
    return [
        Links(title=title, links=[Link(text=t, search=context.address("gap", **c)) for t, c in ways])
        for title, ways, useful in link_rows
        if useful
    ]


def compared(context: PageContext) -> list[Line]:
    """The lines that have a counterpart; a portion without any would say that nothing can be compared."""
    query, index, lines = context.query, context.index, context.lines()
    if context.view.minus == "exact":
        return [line for line in lines if line.gradient == "feedback" and query.exact(line) is not None]
    # By position and not by name: there may be 100,000.
    with_bp = {line.panel for line in index.chosen(rule=("bp",)) if not line.attacks_itself}
    return [line for line in lines if line.rule != "bp" and line.panel in with_bp and not line.attacks_itself]


def _beside(context: PageContext, shown: Sequence[Line]) -> list[Line]:
    """The lines of the filter in the panels of `shown`: these, and their counterparts."""
    panels, rules = context.index.panels, context.view.rule
    names = dict.fromkeys(line.panel for line in shown)
    return [line for name in names for line in panels[name] if not rules or line.rule in rules]


def _over_epsilon(facets: Facets, gaps: Sequence[GapLine], view: PageView) -> Figure:
    by_line = {gap.curve.line: gap for gap in gaps}
    panels = [(p.name, [by_line[line.number] for line in p.lines if line.number in by_line]) for p in facets.panels]
    # A panel whose lines have nothing to be compared with would only say "not run".
    panels = [(name, members) for name, members in panels if members]
    columns, what = min(facets.columns, len(panels)), OVER[view.minus]
    title = f"{style.heading(what)}, over ε"
    figure = gap_figure(panels, columns, view.minus, view.x, view.hide)
    drawing = of_gaps(panels, columns, what, view.hide)
    return Figure(
        name="gap",
        title=title,
        described=described(title, [gap.curve for gap in gaps]),
        figure=figure,
        table=table(gaps),
        drawing=drawing,
    )


def _heat(gaps: Sequence[GapLine], epsilon: float, label: str, minus: str) -> Figure:
    title = f"{style.heading(OVER[minus])}, at ε = {label}"
    shown = [dataclasses.replace(gap, points=(point,)) for gap in gaps if (point := gap.point(epsilon)) is not None]
    figure = heat_figure(shown, epsilon, minus)
    words = described(title, [gap.curve for gap in shown])
    return Figure(name="gap", title=title, described=words, figure=figure, table=table(shown))


_READING = (
    "A gap is the mean over images of one line's outcome minus the other's on the same image and seed, with the "
    "interval of that difference; it is never computed from two intervals.",
    "A transfer from the BP twin has no gap to BP: BP is its own twin, so the attack on it is a white-box one, and "
    "that on the rule is not.",
    "Filled marker (●): the interval, corrected by Holm over every rule and ε of its panel in the store, "
    "shown or not, excludes zero. Hollow (○): it does not, and no difference is shown. The intervals that are drawn "
    "and printed are the uncorrected 95 % ones of each gap: one of them may exclude zero while its marker is hollow.",
    "The flag exact_gradient_breaks is about these very models: its interval is over images alone and not corrected. "
    "A gap is about other seeds as well: its interval is over seeds and images, and what is filled holds after "
    "Holm's correction. With few seeds a flag may be raised where the gap is hollow: these models mask their gradient, "
    "but whether every seed would do so is not shown.",
)


def table(gaps: Sequence[GapLine]) -> Table:
    """The gaps, a row for each."""
    rows = [
        {
            **point_of(line.curve, gap_point.point.label),
            **score_of(gap_point.gap, "gap"),
            "clear": excludes(gap_point.clear),
            "family": line.family,
            "cell": gap_point.point.cell,
        }
        for line in gaps
        for gap_point in line.points
    ]
    return Table(name="gap", columns=_COLUMNS, rows=rows)


def _nothing(context: PageContext) -> Words:
    bp = "BP on the same model and attack, neither of the two being its own surrogate,"
    need = bp if context.view.minus == "bp" else "the same attack with gradient: exact"
    sentences = [f"No line that the filter chooses has a counterpart: a gap here needs {need} in the store."]
    rules = context.index.choices("rule")
    if context.view.minus == "bp" and rules == ["bp"]:
        sentences.append("Every model of the store is of BP: put other rules beside bp in the grid.")
    elif context.view.minus == "bp" and "bp" not in rules:
        sentences.append("The store has no result of BP: put bp into the grid's rules. Only what is missing is run.")
    return Words(title="Nothing to compare", sentences=sentences, tone="todo")

"""Each rule minus BP, or the feedback gradient minus the exact one, paired by seed and image."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.explorer import style
from orchestrator.explorer.blocks import Block, Column, Figure, Page, Table, Words
from orchestrator.explorer.drawing import of_gaps
from orchestrator.explorer.facets import arranged
from orchestrator.explorer.gapfigures import OVER, gap_figure, heat_figure
from orchestrator.explorer.gaps import GapLine, gap_lines
from orchestrator.explorer.pages.context import Context
from orchestrator.explorer.verdicts import halving, verdicts

_COLUMNS = (
    Column(key="backbone", label="backbone"),
    Column(key="dataset", label="data set"),
    Column(key="attack", label="attack"),
    Column(key="gradient", label="gradient"),
    Column(key="rule", label="rule"),
    Column(key="epsilon", label="ε"),
    Column(key="gap", label="gap", kind="points"),
    Column(key="lo", label="from", kind="points"),
    Column(key="hi", label="to", kind="points"),
    Column(key="clear", label="after Holm"),
    Column(key="family", label="comparisons", kind="number"),
    Column(key="method", label="interval"),
    Column(key="images", label="images", kind="number"),
    Column(key="seeds", label="seeds", kind="number"),
)


def page(context: Context) -> Page:
    """In words at one epsilon, over epsilon or as a heat map, and as a table."""
    view = context.view
    lines = context.lines()
    facets = arranged(view, context.snapshot.index, lines)
    shown = [line for panel in facets.panels for line in panel.lines]
    context.curves(shown)
    gaps = gap_lines(context.query, shown, view.minus)
    if not gaps:
        return context.finished("Gap", [_nothing(view.minus)])
    by_line = {gap.curve.line: gap for gap in gaps}
    epsilons = context.epsilons()
    epsilon = epsilons.get(view.epsilon, halving(context.query, shown))
    if view.epsilon and view.epsilon not in epsilons:
        context.problems.append(f"No line shown has ε = “{view.epsilon[:60]}”: another is taken.")
    label = next((text for text, value in epsilons.items() if value == epsilon), f"{epsilon:g}")
    blocks: list[Block] = [
        *_words(context, shown, epsilon, label),
        *context.turning(*facets.turning, "panels"),
    ]
    drawing = None
    if view.form == "heat":
        figure = heat_figure(gaps, epsilon, view.minus)
        title = f"{style.heading(OVER[view.minus])}, at ε = {label}"
    else:
        panels = [(p.name, [by_line[line.number] for line in p.lines if line.number in by_line]) for p in facets.panels]
        # A panel whose lines have nothing to be compared with would only say "not run".
        panels = [(name, members) for name, members in panels if members]
        figure = gap_figure(panels, min(facets.columns, len(panels)), view.minus, view.x)
        title = f"{style.heading(OVER[view.minus])}, over ε"
        drawing = of_gaps(panels, min(facets.columns, len(panels)), OVER[view.minus])
    described = f"{title}: {', '.join(dict.fromkeys(style.label(gap.curve.rule_label) for gap in gaps))} on "
    described += f"{', '.join(dict.fromkeys(gap.curve.title for gap in gaps))}. The table below has the numbers."
    blocks.append(
        Figure(name="gap", title=title, described=described, figure=figure, table=table(gaps), drawing=drawing)
    )
    return context.finished("Gap", [*blocks, Words(title="How to read", sentences=_READING)])


_READING = (
    "A gap is the mean over images of one line's outcome minus the other's on the same image and seed, with the "
    "interval of that difference; it is never made from two intervals.",
    "Filled marker (●): the interval, corrected by Holm over every rule and ε of its panel in the store, "
    "shown or not, excludes zero. Hollow (○): it does not, and no difference is shown.",
)


def table(gaps: Sequence[GapLine]) -> Table:
    """The gaps, a row for each."""
    rows = [
        {
            "backbone": line.curve.backbone_label,
            "dataset": line.curve.dataset_label,
            "attack": line.curve.attack_label,
            "gradient": line.curve.gradient,
            "rule": style.label(line.curve.rule_label),
            "epsilon": at.point.label,
            "gap": at.gap.value,
            "lo": at.gap.lo,
            "hi": at.gap.hi,
            "clear": "excludes zero" if at.clear else "does not exclude zero",
            "family": line.family,
            "method": at.gap.method,
            "images": at.gap.n,
            "seeds": at.gap.seeds,
            "cell": at.point.cell,
        }
        for line in gaps
        for at in line.points
    ]
    return Table(name="gap", title="The same numbers as a table", columns=_COLUMNS, rows=rows)


def _words(context: Context, shown: Sequence[object], epsilon: float, label: str) -> list[Words]:
    lines = [line for line in context.lines() if line in shown]
    found = verdicts(context.query, lines, epsilon, label)
    if not found:
        return []
    more = [f"... and {len(found) - 12} more; narrow the filter."] if len(found) > 12 else []
    title = f"Is a rule more robust than BP at ε = {label}?"
    return [Words(title=title, sentences=[*found[:12], *more], tone="finding")]


def _nothing(minus: str) -> Words:
    need = "BP on the same model and attack" if minus == "bp" else "the same attack with gradient: exact"
    return Words(
        title="Nothing to compare",
        sentences=[f"No line that the filter chooses has a counterpart: a gap here needs {need} in the store."],
        tone="todo",
    )

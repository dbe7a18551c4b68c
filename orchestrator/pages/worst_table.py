"""Clean score and worst case over attacks at one ε, a row for each model: the row of a leaderboard of robustness."""

from __future__ import annotations

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Column, Matrix, MatrixCell, Page, Table, Value, Words
from orchestrator.pages.columns import MODEL
from orchestrator.pages.context import PageContext
from orchestrator.pages.telling_epsilon import at_epsilon
from orchestrator.pages.worst import READING, attacked, models_by_place, over, worst_lines
from orchestrator.results.view import format_view
from orchestrator.results.worst_lines import WorstLine, WorstPoint

_COLUMNS = (
    *MODEL,
    Column(key="norm", label="norm"),
    Column(key="epsilon", label="ε"),
    *(
        Column(key=f"{kind}{end}", label=f"{words}{label}", kind="percent")
        for kind, words in (("clean", "clean"), ("worst", "worst case"))
        for end, label in (("", ""), ("_lo", " from"), ("_hi", " to"))
    ),
    Column(key="images", label="images", kind="number"),
    Column(key="seeds", label="seeds", kind="number"),
    Column(key="strongest", label="strongest run"),
    Column(key="runs", label="runs, the strongest first"),
)
#: Rows at most.
MOST = 240


def page(context: PageContext) -> Page:
    """The table of the models that the filters choose."""
    lines = attacked(context)
    if not lines:
        return context.nothing("Tables")
    epsilon, label, wrong = at_epsilon(context.query, lines, context.view.epsilon)
    if wrong:
        context.replace(wrong)
    models = models_by_place(context, lines)
    total, few = 0, {}
    for place, names in models.items():
        if total < MOST:
            few[place] = names
        total += len(names)
    worst = worst_lines(context, few)
    if len(few) < len(models):
        context.problems.append(f"The first {len(worst):,} of {total:,} models are here; narrow the filter.")
    rows = [(worst_line, worst_line.points[epsilon]) for worst_line in worst if epsilon in worst_line.points]
    if not rows:
        return context.nothing("Tables")
    several = len({worst_line.curve.norm for worst_line, _ in rows}) > 1
    title = f"Clean score and worst case over {over(context)}, at ε = {label}"
    matrix = Matrix(
        name="table",
        title=title,
        header=["backbone", "data set", "rule", "clean", f"worst case, ε = {label}", "strongest run", "runs"],
        rows=[(_names(worst_line, several), _entries(context, worst_line, point)) for worst_line, point in rows],
        note="Percent [95 % interval]; a worst case is over the seeds and images that every run of it has.",
        table=Table(
            name="table-rows",
            title="The same numbers as a table",
            columns=_COLUMNS,
            rows=[_row(worst_line, point) for worst_line, point in rows],
        ),
    )
    return context.finished("Tables", [matrix, Words(title="How to read", sentences=READING)])


def _names(worst_line: WorstLine, several: bool) -> list[str]:
    curve = worst_line.curve
    place = curve.dataset_label + f", {style.norm(curve.norm)}" * several
    return [curve.backbone_label, place, style.label(curve.rule_label)]


def _entries(context: PageContext, worst_line: WorstLine, worst: WorstPoint) -> list[MatrixCell]:
    point, missing = worst.point, MatrixCell(lines=["not run"], state="not run")
    search = format_view(context.view.turned("cell", cell=point.cell))
    return [
        missing if worst_line.clean is None else MatrixCell(lines=style.in_table(worst_line.clean.score)),
        MatrixCell(lines=style.in_table(point.score), search=search),
        MatrixCell(lines=[point.runs[0]]),
        MatrixCell(lines=[str(len(point.runs))], about=", ".join(point.runs)),
    ]


def _row(worst_line: WorstLine, worst: WorstPoint) -> dict[str, Value]:
    curve, point = worst_line.curve, worst.point
    row: dict[str, Value] = {"backbone": curve.backbone_label, "dataset": curve.dataset_label}
    row |= {"rule": style.label(curve.rule_label), "norm": style.norm(curve.norm), "epsilon": point.label}
    for kind, score in (
        ("clean", None if worst_line.clean is None else worst_line.clean.score),
        ("worst", point.score),
    ):
        if score is not None:
            row |= {kind: score.value, f"{kind}_lo": score.lo, f"{kind}_hi": score.hi}
    row |= {"images": point.score.n, "seeds": point.score.seeds, "cell": point.cell}
    return row | {"strongest": point.runs[0], "runs": ", ".join(point.runs)}

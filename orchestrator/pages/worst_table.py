"""Clean score and worst case over attacks at one ε, a row for each model: the row of a leaderboard of robustness."""

from __future__ import annotations

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Matrix, MatrixCell, Page, Table, Value, Words
from orchestrator.pages.columns import IMAGES, RUNS, WORST, ends_of, with_ends, worst_of
from orchestrator.pages.context import PageContext
from orchestrator.pages.telling_epsilon import at_epsilon
from orchestrator.pages.worst import READING, attacked, models_by_place, over, worst_lines
from orchestrator.results.worst_lines import WorstLine, WorstPoint

_COLUMNS = (*WORST, *with_ends("clean", "clean"), *with_ends("worst", "worst case"), *IMAGES, *RUNS[:2])
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
        table=Table(name="table-rows", columns=_COLUMNS, rows=[_row(worst_line, point) for worst_line, point in rows]),
    )
    return context.finished("Tables", [matrix, Words(title="How to read", sentences=READING)])


def _names(worst_line: WorstLine, several: bool) -> list[str]:
    curve = worst_line.curve
    place = curve.dataset_label + f", {style.norm(curve.norm)}" * several
    return [curve.backbone_label, place, style.label(curve.rule_label)]


def _entries(context: PageContext, worst_line: WorstLine, worst: WorstPoint) -> list[MatrixCell]:
    point, missing = worst.point, MatrixCell(lines=["not run"], state="not run")
    search = context.address("cell", cell=point.cell)
    return [
        missing if worst_line.clean is None else MatrixCell(lines=style.in_table(worst_line.clean.score)),
        MatrixCell(lines=style.in_table(point.score), search=search),
        MatrixCell(lines=[point.runs[0]]),
        MatrixCell(lines=[str(len(point.runs))], about=", ".join(point.runs)),
    ]


def _row(worst_line: WorstLine, worst: WorstPoint) -> dict[str, Value]:
    score, clean = worst.point.score, None if worst_line.clean is None else worst_line.clean.score
    row = worst_of(worst_line.curve, worst) | ends_of("clean", clean) | ends_of("worst", score)
    return row | {"images": score.n, "seeds": score.seeds}

"""One cell: its score, where the number comes from, its images, and how to rerun it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Facts, Link, Links, Matrix, MatrixCell, Page, Words
from orchestrator.drawing.facets import portion
from orchestrator.pages.alignment import layers
from orchestrator.pages.context import PageContext
from orchestrator.pages.curves import table
from orchestrator.pages.pictures import pictures
from orchestrator.pages.provenance import jobs, provenance
from orchestrator.results.curve import Point
from orchestrator.results.index import Index
from orchestrator.results.labels import gradient, score_name
from orchestrator.results.line import Line
from orchestrator.results.pairing import matrix
from orchestrator.results.superseded import Why
from orchestrator.results.view import format_view
from signsym_core.statistics.intervals import interval

#: Lines of one portion of the cells to choose from.
MOST = 40


def page(context: PageContext) -> Page:
    """The cell that the view names."""
    index = context.index
    row = index.row_of(context.view.cell)
    if row is None:
        if context.view.cell:
            context.replace(f"The store has no cell “{context.view.cell[:70]}”.")
        return _choice(context)
    line, epsilon = index.line_of(row), float(index.epsilon[row])
    if not str(index.value("cell", row)).startswith(context.view.cell):
        words = {
            Why.FEWER: f"is of fewer images; that of {index.value('n', row):,} is here",
            Why.OLDER: "is of an older version of signsym, whose numbers moved; the newer one is here",
            Why.ALIKE: "is the same on the same images; that which was finished first is here",
            Why.SURROGATE: "was made on another surrogate of an other seed; the later one is here",
        }
        asked = context.view.cell
        context.replace(f"Cell “{asked[:70]}” {words[index.why_another(asked)]}.")
    curves = context.curves([line])
    point = curves[0].point(epsilon) if curves else None
    rows = context.snapshot.query().rows_by_seed(line, epsilon)
    blocks: list[Block] = [_links(context, line), *_seeds(context, rows, int(index.seed[row]))]
    blocks.append(Facts(title="Setting", facts=_what(index, line, row)))
    if point is not None:
        raised = context.computed.flags.rings(curves)
        flags = ", ".join(raised.get((line.number, epsilon), ())) or "none"
        facts = _scores(context, line, point, row, list(rows))
        if point.over_bp is not None:
            facts.append(("gap to BP", style.beside(point.over_bp, point.score)))
        if point.over_exact is not None:
            facts.append(("own feedback minus exact gradient", style.beside(point.over_exact, point.score)))
        blocks.append(Facts(title="Result", facts=[*facts, ("flags", flags), *_counts(context, line, epsilon)]))
    blocks += pictures(context, line, epsilon)
    if curves:
        blocks.append(table(context, curves, {}, name="cell-line", title="Its whole line"))
    blocks += [provenance(context, row), jobs(context, rows), *layers(context, row)]
    blocks.append(_rerun(context, str(index.value("cell", row))))
    return context.finished(_title(index, line, row), blocks)


def _title(index: Index, line: Line, row: int) -> str:
    """A short title: "frSF, pgd (feedback), ε = 0.1, smallcnn / digits"."""
    names = [style.label(index.labels.of(line, "rule"))]
    if line.attack == "none":
        names.append("clean")
    else:
        followed = "" if line.gradient == "none" else f" ({gradient(line)})"
        names += [index.labels.of(line, "attack") + followed, f"ε = {index.value('epsilon_label', row)}"]
    return ", ".join([*names, index.labels.title(line)])


def _seeds(context: PageContext, rows: Mapping[int, int], seed_of_cell: int) -> list[Block]:
    """Links to the cells of the point's other seeds."""
    if len(rows) < 2:
        return []
    index = context.index
    links = [
        Link(
            text=f"seed {seed}" + " (this one)" * (seed == seed_of_cell),
            search=context.address("cell", cell=str(index.value("cell", row))),
        )
        for seed, row in sorted(rows.items())
    ]
    return [Links(title="The same point with", links=links)]


def _scores(context: PageContext, line: Line, point: Point, row: int, rows: Sequence[int]) -> list[tuple[str, str]]:
    """The score over seeds with its number of outcomes, and the score of the cell's seed."""
    seed_of_cell, score = int(context.index.seed[row]), point.score
    seeds, rests = sorted(point.by_seed), style.rests_on(score)
    named = ", ".join(map(str, seeds))
    if len(rows) == 1:
        over = f"score of seed {named}, the only one"
    elif len(seeds) == len(rows):
        over = f"score over all {len(seeds)} seeds"
    else:
        over = f"score over {len(seeds)} of {len(rows)} seeds ({named})"
    if line.metric == "top1":
        rests = f"{round(score.value * score.n * score.seeds):,} of {rests} handled rightly"
    method = {"wilson": "Wilson's"}.get(score.method, score.method)
    facts = [(over, style.percent(score)), ("which is", f"{rests}, {method} interval")]
    outcome = context.snapshot.query().cells(line, point.epsilon).get(seed_of_cell)
    if len(rows) > 1 and outcome is not None:
        facts.append(
            (f"score of seed {seed_of_cell}, this cell", f"{style.percent(interval(outcome.scores))}, images only")
        )
    return facts


def _choice(context: PageContext) -> Page:
    """The points that the filter chooses, line by line, each a link to its cell."""
    lines = [*context.lines(clean=True), *context.lines()]
    number, portions, shown = portion(context.view.portion, lines, MOST)
    curves = context.curves(shown)
    if not curves:
        return context.nothing("Cell")
    epsilons = dict(sorted({point.epsilon: point.label for curve in curves for point in curve.points}.items()))
    rows = []
    for curve in curves:
        line = context.index.lines[curve.line]
        names = [style.label(curve.rule_label), curve.title, curve.attack_label, gradient(line)]
        rows.append((names, [_chip(context, curve.point(epsilon)) for epsilon in epsilons]))
    matrix = Matrix(
        name="cells",
        title="Choose a cell",
        header=["rule", "model", "attack", "gradient", *(f"ε {label}" for label in epsilons.values())],
        rows=rows,
        note="Scores in percent; click one for its images, its settings and where the number comes from. Points of "
        "figures and rows of other tables lead there too.",
        table=table(context, curves, {}),
    )
    return context.finished("Cell", [*context.turning(number, portions, len(shown), len(lines), "lines"), matrix])


def _chip(context: PageContext, point: Point | None) -> MatrixCell:
    if point is None:
        return MatrixCell(lines=[""])
    search = context.address("cell", cell=point.cell)
    return MatrixCell(
        lines=[f"{100 * point.score.value:.1f}"],
        search=search,
        about=f"ε = {point.label}: {style.percent(point.score)}",
    )


def _links(context: PageContext, line: Line) -> Links:
    chosen_gradient = () if line.gradient == "none" else (line.gradient,)
    chosen = {
        "backbone": (line.backbone,),
        "dataset": (line.dataset,),
        "attack": (line.attack,),
        "gradient": chosen_gradient,
    }
    # Curves, gaps and flags are of lines under attack.
    names = {"curves": "its curve", "gap": "its gap", "flags": "its flags"}
    if line.attack == "none":
        names = {"tables": "its table"}
        chosen = {"backbone": (line.backbone,), "dataset": (line.dataset,)}
    views = {name: context.view.turned(name, task=line.task, **chosen) for name in names}
    return Links(title="To", links=[Link(text=names[name], search=format_view(view)) for name, view in views.items()])


def _what(index: Index, line: Line, row: int) -> list[tuple[str, str]]:
    facts = [("task", line.task), ("score", score_name(line))]
    facts += [("model", index.labels.title(line)), ("rule", style.label(index.labels.of(line, "rule")))]
    facts += [("attack", index.labels.of(line, "attack")), ("gradient", style.gradient(gradient(line)))]
    norm = style.norm(str(index.value("norm", row)))
    facts += [
        ("ε", f"{index.value('epsilon_label', row)} ({norm}, [0, 1] pixels)"),
        ("seed", f"{index.seed[row]} (this cell)"),
    ]
    return facts


def _counts(context: PageContext, line: Line, epsilon: float) -> list[tuple[str, str]]:
    """How many images each seed handles rightly, and how many of these BP does not."""
    query = context.query
    if line.metric == "map":
        return []
    cells = query.cells(line, epsilon)
    facts = [
        (f"seed {seed}", f"{int(outcome.scores.sum()):,} of {len(outcome.scores):,} images handled rightly")
        for seed, outcome in sorted(cells.items())
    ]
    bp = query.bp(line)
    both = None if bp is None else query.pair(line, bp, epsilon)
    if both is not None and matrix(cells) is not None:
        robust, bp_robust = (side > 0.5 for side in both)
        for words, pairs in (
            ("robust under both", robust & bp_robust),
            ("robust under this rule, broken under BP", robust & ~bp_robust),
            ("broken under this rule, robust under BP", ~robust & bp_robust),
            ("broken under both", ~robust & ~bp_robust),
        ):
            facts.append((words, f"{int(np.count_nonzero(pairs)):,} of {robust.size:,} (seed, image) pairs"))
    return facts


def _rerun(context: PageContext, cell: str) -> Words:
    text = context.data.rerun_grid(cell)
    if text is None:
        sentence = "No stored grid that this version can read has this cell, so there is no command to rerun it."
        return Words(title="Rerun", sentences=[sentence], tone="warning")
    sentences = [
        "Save this as cell.yaml and run it. The plan has the key of this cell, so on the same kind of device the "
        "number must be the same: the column value of again.csv."
    ]
    commands = [text, "signsym sweep cell.yaml --storage again", "signsym export again --what results --out again.csv"]
    return Words(title="Rerun", sentences=sentences, commands=commands)

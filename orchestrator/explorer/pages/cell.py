"""One cell: where its number comes from, what it looks like, and how to get it again."""

from __future__ import annotations

import numpy as np

from orchestrator.explorer import style
from orchestrator.explorer.blocks import Block, Facts, Link, Links, Page, Words
from orchestrator.explorer.index import Index
from orchestrator.explorer.labels import score_name
from orchestrator.explorer.line import Line
from orchestrator.explorer.pages.context import Context
from orchestrator.explorer.pages.curves import table
from orchestrator.explorer.pages.pictures import pictures
from orchestrator.explorer.pairing import matrix
from orchestrator.explorer.view import format_view

_HOW = "Click a marker of a figure or a row of a table, or open one of these"


def page(context: Context) -> Page:
    """The cell that the view names."""
    index = context.snapshot.index
    row = index.row_of(context.view.cell)
    if row is None:
        if context.view.cell:
            context.problems.append(f"The store has no cell “{context.view.cell[:70]}”.")
        return context.finished("Cell", [_choice(context)])
    line, epsilon = index.line_of(row), float(index.epsilon[row])
    curves = context.curves([line])
    point = curves[0].at(epsilon) if curves else None
    blocks: list[Block] = [_links(context, line), Facts(title="What it is", facts=_what(index, line, row))]
    if point is not None:
        raised = context.flags.rings(curves)
        flags = ", ".join(raised.get((line.number, epsilon), ())) or "none"
        facts = [("score", style.percent(point.score)), ("of", f"{style.rests_on(point.score)}, {point.score.method}")]
        if point.over_bp is not None:
            facts.append(("gap to BP", f"{style.points(point.over_bp)} points"))
        if point.over_exact is not None:
            facts.append(("own feedback minus exact gradient", f"{style.points(point.over_exact)} points"))
        blocks.append(Facts(title="What came out", facts=[*facts, ("flags", flags), *_counts(context, line, epsilon)]))
    shown = pictures(context, line, epsilon)
    blocks.append(shown)
    if curves:
        blocks.append(table(curves, {}, name="cell-line", title="Its whole line"))
    blocks.append(Facts(title="Where it comes from", facts=_provenance(context, row)))
    blocks.append(_again(context, str(index.value("cell", row))))
    return context.finished("Cell", blocks)


def _choice(context: Context) -> Block:
    lines = context.lines()[:12]
    if not lines:
        return Words(title="Nothing fits the filter", sentences=["Take away a part of it."], tone="todo")
    index = context.snapshot.index
    links = []
    for line in lines:
        row = int(index.points(line)[-1])
        labels = index.labels
        text = f"{style.label(labels.of(line, 'rule'))}, {labels.title(line)}, {labels.of(line, 'attack')}, "
        text += f"{line.gradient}, ε = {index.value('epsilon_label', row)}"
        search = format_view(context.view.turned("cell", cell=str(index.value("cell", row))))
        links.append(Link(text=text, search=search))
    return Links(title=_HOW, links=links)


def _links(context: Context, line: Line) -> Links:
    gradient = () if line.gradient == "none" else (line.gradient,)
    chosen = {"backbone": (line.backbone,), "dataset": (line.dataset,), "attack": (line.attack,), "gradient": gradient}
    names = {"curves": "its curve", "gap": "its gap", "flags": "its flags"}
    views = {name: context.view.turned(name, task=line.task, **chosen) for name in names}
    return Links(title="To", links=[Link(text=names[name], search=format_view(view)) for name, view in views.items()])


def _what(index: Index, line: Line, row: int) -> list[tuple[str, str]]:
    facts = [("task", line.task), ("score", score_name(line.task, line.task_params, line.metric))]
    facts += [("model", index.labels.title(line)), ("rule", style.label(index.labels.of(line, "rule")))]
    facts += [("attack", index.labels.of(line, "attack")), ("gradient", style.gradient(line.gradient))]
    norm = style.norm(str(index.value("norm", row)))
    facts += [("ε", f"{index.value('epsilon_label', row)} ({norm}, [0, 1] pixels)"), ("seed", str(index.seed[row]))]
    return facts


def _counts(context: Context, line: Line, epsilon: float) -> list[tuple[str, str]]:
    """How many images each seed handles, and which of them BP does not."""
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
        ours, theirs = (side > 0.5 for side in both)
        for words, found in (
            ("robust under both", ours & theirs),
            ("robust under this rule, broken under BP", ours & ~theirs),
            ("broken under this rule, robust under BP", ~ours & theirs),
            ("broken under both", ~ours & ~theirs),
        ):
            facts.append((words, f"{int(np.count_nonzero(found)):,} of {ours.size:,} (seed, image) pairs"))
    return facts


def _provenance(context: Context, row: int) -> list[tuple[str, str]]:
    index = context.snapshot.index
    stored = context.data.row(index, row)
    asked = context.status.origin(str(index.value("cell", row)))
    facts = [
        (name, str(value))
        for name, column in {
            "cell": "cell",
            "attack job": "job",
            "fine-tune job": "finetune_job",
            "images made on": "surrogate_job",
            "code": "git",
            "versions": "versions",
            "device": "device",
            "seconds of the job": "seconds",
            "finished": "finished_at",
            "gradient steps": "steps",
            "step size": "step_size",
            "fine-tune settings": "finetune",
            "weights": "weights",
        }.items()
        if (value := stored.get(column)) is not None and value != ""
    ]
    grid = "no stored grid that can be read asks for it" if asked is None else f"{asked.grid}, {asked.experiment + 1}."
    return [*facts, ("grid, experiment", grid.removesuffix("."))]


def _again(context: Context, cell: str) -> Words:
    text = context.data.again(cell)
    if text is None:
        sentence = "No stored grid that this version can read has this cell, so there is no command to run it again."
        return Words(title="Again", sentences=[sentence], tone="warning")
    sentences = ["Save this as cell.yaml and run it. The plan has this cell's own key, so the number must be the same:"]
    return Words(title="Again", sentences=sentences, commands=[text, "signsym sweep cell.yaml --storage again"])

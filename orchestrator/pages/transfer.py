"""Blocks about transfer: whose examples fool whose models."""

from __future__ import annotations

from collections.abc import Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Figure, Table, Words
from orchestrator.drawing.transfer_figure import CLEAN, TransferEntry, transfer_figure
from orchestrator.jobs.surrogates import SurrogateName
from orchestrator.pages.columns import SCORE, score_of, texts
from orchestrator.pages.context import PageContext
from orchestrator.results.labels import score_name
from orchestrator.results.line import Line
from orchestrator.results.scores import points_at
from orchestrator.results.transfer import TransferMatrix, matrices

#: The beginning of the names of its figures.
NAME = "transfer"
#: Matrices of a page at most.
MOST = 8
_COLUMNS = (
    *texts(made_on="examples made on", attacked="attacked", white_box="white box", epsilon="ε"),
    *SCORE,
)


def blocks(context: PageContext, lines: Sequence[Line], epsilon: float, label: str) -> list[Block]:
    """A matrix for each attack and model of `lines`, and how to read them; nothing without a named surrogate."""
    found = matrices(context.index, lines)
    drawn: list[Block] = []
    for matrix in found[:MOST]:
        entries = _entries(context, matrix, epsilon)
        if entries:
            drawn.append(_figure(context, matrix, entries, label, f"{NAME}{len(drawn) + 1}"))
    if not drawn:
        return []
    left = f"{len(found) - MOST} more attacks are not shown; narrow the filter." if len(found) > MOST else ""
    return [*drawn, Words(title="How to read whose examples fool whom", sentences=[*_READING, *filter(None, [left])])]


def _entries(context: PageContext, matrix: TransferMatrix, epsilon: float) -> list[TransferEntry]:
    """The row of clean scores, where the store has any, and a row for each surrogate; columns in the order of rules."""
    labels = context.labels
    points, _ = points_at(context.query, list(matrix.lines.values()), epsilon)
    clean, _ = points_at(context.query, list(matrix.clean.values()), 0.0)
    if not points:
        return []
    entries = [
        TransferEntry(made_on=CLEAN, attacked=style.label(labels.of(line, "rule")), point=clean[line.number])
        for attacked in matrix.attacked
        if (line := matrix.clean.get(attacked)) is not None and line.number in clean
    ]
    for surrogate in matrix.surrogates:
        for attacked in matrix.attacked:
            line = matrix.lines.get((surrogate, attacked))
            if line is not None and line.number in points:
                entries.append(
                    TransferEntry(
                        made_on=_in_words(surrogate),
                        attacked=style.label(labels.of(line, "rule")),
                        point=points[line.number],
                        white_box=line.attacks_itself,
                    )
                )
    return entries


def _in_words(surrogate: SurrogateName) -> str:
    return f"{style.surrogate(surrogate)}, {'other' if surrogate.other_seed else 'same'} seed"


def _figure(
    context: PageContext, matrix: TransferMatrix, entries: Sequence[TransferEntry], label: str, name: str
) -> Figure:
    line, index = matrix.example, context.index
    score = score_name(line)
    title = f"Whose examples fool whom: {index.labels.of(line, 'attack')} on {index.labels.title(line)}, at ε = {label}"
    rows = [
        {
            **{"made_on": entry.made_on, "attacked": entry.attacked, "white_box": "yes" if entry.white_box else "no"},
            "epsilon": style.epsilon(entry.point),
            **score_of(entry.point.score),
            "cell": entry.point.cell,
        }
        for entry in entries
    ]
    return Figure(
        name=name,
        title=title,
        described=f"{title}: {score}, by the surrogate's rule and the attacked rule. The table below has the numbers.",
        figure=transfer_figure(entries, score),
        table=Table(name=name, columns=_COLUMNS, rows=rows),
    )


_READING = (
    "A row is the surrogate: the model that the examples were made on, along its exact gradient, with the rule that "
    "it was trained by. A column is the rule of the models that the examples were then shown to. An entry is what is "
    "left of these, in percent, with its 95 % interval over seeds and images; the first row is without an attack.",
    "Same seed: the surrogate has the seed of the attacked model. Other seed: it has another one of the grid. Bold "
    "with a ◆: both are one model, so that this is the white-box attack along its own exact gradient, which no "
    "transfer should beat.",
    "A row that fools nobody: the gradient of these models says little about other models. A column in which the "
    "examples of another rule leave less than the ◆ does: the attack along its own gradient was not the strongest one, "
    "which is a sign of a masked gradient.",
)

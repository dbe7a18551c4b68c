"""The paper's tables with the store's scores and the printed ones in one cell, or all scores of the filter."""

from __future__ import annotations

from collections.abc import Mapping

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Link, Links, Matrix, MatrixCell, Page, Table, Value, Words
from orchestrator.pages import calibration, corruptions, worst_table
from orchestrator.pages.columns import POINT, SCORE, percents, score_of, texts
from orchestrator.pages.context import PageContext
from orchestrator.pages.paper_tables import PRESETS, PaperTable, Preset, TableCell, TableRow, paper_table, preset_of
from orchestrator.pages.telling_epsilon import halving, matching
from orchestrator.results.certificates import out_of_reach
from orchestrator.results.line import Line, grid_key_value
from orchestrator.results.test_images import test_images

_COLUMNS = (
    *POINT,
    *texts(state="state"),
    *SCORE,
    *texts(best="best", paper="paper prints, %"),
    *percents(paper_lo="paper from", paper_hi="paper to"),
)
#: Rows of a table at most.
MOST = 60


def page(context: PageContext) -> Page:
    """The table that is chosen, as the paper prints it and as rows."""
    name = _name(context)
    if name == "worst":
        return worst_table.page(context)
    if name == "corruptions":
        return corruptions.page(context)
    preset = PRESETS[name]
    clean = preset.attacks == ("none",)
    lines, planned = _lines(context, preset), _planned(context, preset)
    epsilon, label = (0.0, "0") if clean else _epsilon(context, lines, planned)
    if len(lines) > 8 * MOST:
        context.problems.append(f"The first {8 * MOST} of {len(lines):,} lines are here; narrow the filter.")
        lines = lines[: 8 * MOST]
    context.problems += out_of_reach(context.index, context.query.curves(lines), epsilon)
    # The paper's whole table is shown where it was chosen: a store of other models has none of its rows.
    whole = bool(context.view.preset)
    table = paper_table(context.query, context.status, lines, planned, epsilon, name, whole)
    if not table.rows:
        return context.nothing("Tables")
    title = f"Under {', '.join(context.view.attack)}" if name == "all" and context.view.attack else preset.title
    matrix = Matrix(
        name="table",
        title=title if clean or not label else f"{title}, at ε = {label}",
        header=["backbone", "data set", "attack", "gradient", *map(style.label, table.rules)],
        rows=[(row.names, [_entry(context, row.scores[rule]) for rule in table.rules]) for row in table.rows],
        note=_note(table),
        table=Table(name="table-rows", columns=_COLUMNS, rows=_rows(table, label)),
    )
    reading = Words(title="How to read", sentences=_reading(context, name, table))
    sure = calibration.blocks(context, lines) if clean else []
    return context.finished("Tables", [*_others(context), matrix, reading, *sure])


def _others(context: PageContext) -> list[Block]:
    """A link to the scores on corrupted images, which the paper's tables leave out."""
    if context.view.preset or not context.corrupted():
        return []
    search = context.address("tables", preset="corruptions")
    return [
        Links(
            title="Scores on corrupted images have a table of their own",
            links=[Link(text="corruptions", search=search)],
        )
    ]


def _name(context: PageContext) -> str:
    """The chosen table; by default that of the task if any of it was run or planned, else all attacks.

    Of models that were on corrupted images alone that of these.
    """
    view = context.view
    task_table = preset_of(view.preset, view.task)
    if view.preset or _lines(context, PRESETS[task_table]) or _planned(context, PRESETS[task_table]):
        return task_table
    return "corruptions" if context.corrupted() and not context.lines() else "all"


def _lines(context: PageContext, preset: Preset) -> list[Line]:
    if preset.attacks == ("none",):
        return context.lines(clean=True)
    return [line for line in context.lines() if not preset.attacks or line.attack in preset.attacks]


def _epsilon(context: PageContext, lines: list[Line], planned: list[tuple[str, ...]]) -> tuple[float, str]:
    """The chosen epsilon, or by default one chosen by the data, and its label; "" where there is no epsilon."""
    chosen, epsilons = context.view.epsilon, context.index.epsilons(lines)
    label = matching(chosen, epsilons)
    if label is None and (chosen or not epsilons):
        cells = [
            cell for line in planned for cells_of_line in context.status.by_line[line] for cell in cells_of_line.cells
        ]
        planned_epsilons = {text: epsilon for _, epsilon, text in cells}
        label, epsilons = matching(chosen, planned_epsilons), planned_epsilons | epsilons
    if label is not None:
        return epsilons[label], label
    epsilon = halving(context.query, lines)
    if epsilon == 0:
        # No line has a score under attack.
        epsilon = max(epsilons.values(), default=0.0)
    label = next((text for text, value in epsilons.items() if value == epsilon), "")
    if chosen and label:
        context.replace(f"No line shown has ε = “{chosen[:60]}”: ε = {label} is taken.")
    return epsilon, label


def _planned(context: PageContext, preset: Preset) -> list[tuple[str, ...]]:
    """The planned lines that the filter and the table choose."""
    view, attacks = context.view, preset.attacks
    values_by_column = {"task": (view.task,), "backbone": view.backbone, "dataset": view.dataset, "rule": view.rule}
    if attacks != ("none",):
        values_by_column |= {"gradient": view.gradient, "attack": view.attack}
    lines = context.status.lines(view.grid) if view.grid else context.status.by_line
    return [
        line
        for line in lines
        if all(not values or grid_key_value(line, column) in values for column, values in values_by_column.items())
        and (grid_key_value(line, "attack") in attacks if attacks else grid_key_value(line, "attack") != "none")
        and not (attacks == ("none",) and test_images(grid_key_value(line, "dataset_params")).kind)
    ]


def _entry(context: PageContext, score: TableCell) -> MatrixCell:
    lines = []
    if score.point is None:
        lines.append(score.state + (f": {score.reason[:80]}" if score.reason else ""))
    else:
        lines += style.in_table(score.point.score)
    if score.printed is not None:
        lines.append(f"paper {score.printed.words}")
    search = "" if score.point is None else context.address("cell", cell=score.point.cell)
    state = "best" if score.best else score.state
    return MatrixCell(lines=lines, state=state, search=search, about=score.reason)  # type: ignore[arg-type]


def _rows(table: PaperTable, label: str) -> list[Mapping[str, Value]]:
    return [_row(row, rule, row.scores[rule], label) for row in table.rows for rule in table.rules]


def _row(row: TableRow, rule: str, score: TableCell, label: str) -> Mapping[str, Value]:
    values: dict[str, Value] = dict(zip(("backbone", "dataset", "attack", "gradient"), row.names, strict=True))
    values |= {"rule": style.label(rule), "epsilon": label, "state": score.state or "done"}
    if score.reason:
        values["state"] = f"{score.state}: {score.reason}"
    if score.point is not None:
        values |= score_of(score.point.score)
        values |= {"best": "best" if score.best else "", "cell": score.point.cell}
    if score.printed is not None:
        values["paper"] = score.printed.text
        if score.printed.interval is not None:
            values |= {"paper_lo": score.printed.interval[0], "paper_hi": score.printed.interval[1]}
    return values


def _note(table: PaperTable) -> str:
    note = "Percent [95 % interval]."
    if table.family:
        note += " Bold: the highest of its row, where the paired gap to the runner-up excludes zero after Holm's "
        note += f"correction over the {style.counted(table.family, 'row')} of this table that can be compared."
    return note


def _reading(context: PageContext, name: str, table: PaperTable) -> list[str]:
    sentences = [
        "Where “not run”, “running” or “failed” stands, no number is known. A 0.0 is a number: it was measured, and "
        "the model got nothing right."
    ]
    if name == "all" and not context.view.preset:
        task_title = PRESETS[preset_of("", context.view.task)].title
        sentences.insert(0, f"Nothing is run or planned of “{task_title}”, so the scores under attack are here.")
    if table.absent:
        rows = style.counted(table.absent, "more row")
        sentences.append(f"The paper's table has {rows}, of which this store has nothing: choose {name} to see them.")
    if any(score.printed for row in table.rows for score in row.scores.values()):
        where = "every percentage of Tables 1, 3 and 4 is a multiple of 1/32, as one batch of 32 images gives"
        sentences.append(
            "“paper” is what “Sign-Symmetry Learning Rules are Robust Fine-Tuners” prints, from one run. "
            + (
                "It gives no number of images for mAP, so no interval is implied; “–” is where it has no number."
                if name == "2"
                else f"Its interval is Wilson's at n = 32. That n is inferred from the digits, not stated: {where}."
            )
        )
    return sentences

"""Scores under natural corruptions: a row for each model with its mean, its gap to BP and its errors beside BP's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Figure, Matrix, MatrixCell, Page, Table, Value, Words
from orchestrator.drawing.corruption_figure import SeverityLine, corruption_figure, mean_drawing
from orchestrator.pages.columns import (
    GAP,
    HOLM,
    MODEL,
    SCORE,
    ends_of,
    excludes,
    few_sentence,
    gap_of,
    model_of,
    score_of,
    texts,
    with_ends,
)
from orchestrator.pages.context import PageContext
from orchestrator.results.corruption_rows import CorruptionRow, corruption_rows
from orchestrator.results.corruptions import CorruptedModel, kinds_of
from orchestrator.results.curve import Curve, curve_of
from orchestrator.results.test_images import on_clean_images
from signsym_core.statistics.intervals import Interval
from signsym_core.statistics.ratios import Ratio

#: Models, and settings with a figure, at most.
MOST, FIGURES = 60, 4
#: What stands for the mean over kinds, and for that over severities.
EVERY, ALL = "mean over kinds", "mean"
_COLUMNS = (
    *MODEL,
    *texts(kind="corruption", severity="severity"),
    *SCORE,
    *GAP,
    *with_ends("ce", "CE"),
    *with_ends("relative", "relative CE"),
    *HOLM,
)


def page(context: PageContext) -> Page:
    """The models that the filters choose and that were tested on corrupted images."""
    chosen = {line.model: line.figure for line in map(on_clean_images, context.corrupted())}
    if len(chosen) > MOST:
        context.problems.append(f"The first {MOST} of {len(chosen):,} models are here; narrow the filter.")
        chosen = dict([*chosen.items()][:MOST])
    models = [model for model in context.computed.corruptions.of(chosen.values()) if model.line.model in chosen]
    named = [(curve, model) for model in models if (curve := _curve(context, model)) is not None]
    if not named:
        return context.finished("Tables", [_NOTHING])
    settings: dict[tuple[str, ...], list[tuple[Curve, CorruptedModel]]] = {}
    for curve, model in named:
        settings.setdefault(curve.figure, []).append((curve, model))
    if len(settings) > FIGURES:
        context.problems.append(
            f"Figures of the first {FIGURES} of {len(settings):,} settings are here; narrow the filter."
        )
    figures = [_figure(number, of_setting) for number, of_setting in enumerate([*settings.values()][:FIGURES], 1)]
    return context.finished(
        "Tables", [_matrix(named), *figures, _by_kind(context, named), Words(title="How to read", sentences=READING)]
    )


READING = (
    "Under corruptions: the mean score over kinds, each the mean over its severities, of the seeds and images that all "
    "of them have. The gap is to BP under the same corruptions, paired by seed and image; ● excludes zero after Holm's "
    "correction over the rules of the setting, ○ does not.",
    "mCE, the mean corruption error: for each kind the errors, summed over severities, over those of BP of the same "
    "seed; then the mean over kinds, in percent. Below 100 % the rule makes fewer errors than BP. Relative mCE has "
    "errors minus those on clean images in their place: below 100 % the rule loses less to corruptions than BP does, "
    "from wherever it starts. Their intervals are Student's over seeds, on these images. The benchmark divides by the "
    "errors of an AlexNet: its mCE cannot be compared with these.",
    "CE is a kind's part of mCE. Click a point of a panel of one kind for its cell, with images. No fine-tune saw a "
    "corrupted image.",
)
_NOTHING = Words(
    title="No model was tested on corrupted images",
    sentences=["A grid asks for them by a data set: {name: digits, corruption: all, severity: all}, or cifar10's."],
    tone="todo",
    commands=["signsym sweep grids/corruptions.yaml"],
)


def _curve(context: PageContext, model: CorruptedModel) -> Curve | None:
    """The clean point of a model as a curve, with its labels; None where nothing of it has outcomes."""
    first = model.clean or next(iter(model.points.values()), None)
    return None if first is None else curve_of(context.index, model.line, {0.0: first})


def _figure(number: int, members: Sequence[tuple[Curve, CorruptedModel]]) -> Block:
    curve = members[0][0]
    kinds = kinds_of(model for _, model in members)
    panels = [(EVERY, [_mean_line(*member) for member in members])]
    panels += [(kind.replace("_", " "), [_line(kind, *member) for member in members]) for kind in kinds]
    title = f"{style.heading(curve.score_name)} over the severity of corruptions: {curve.title}"
    rules = ", ".join(style.label(member.rule_label) for member, _ in members)
    return Figure(
        name="corruptions" if number == 1 else f"corruptions-{number}",
        title=title,
        described=f"{title}, of {rules}. The table above has the numbers.",
        figure=corruption_figure([(title, [line for line in lines if line.scores]) for title, lines in panels]),
        table=_table(members, f"corruptions-{number}-rows"),
        drawing=mean_drawing(curve.title, panels[0][1]),
        shows_table=False,
    )


def _mean_line(curve: Curve, model: CorruptedModel) -> SeverityLine:
    clean = {} if model.clean is None or not model.by_severity else {0: model.clean.score}
    return SeverityLine(curve=curve, scores=clean | dict(model.by_severity), cells={})


def _line(kind: str, curve: Curve, model: CorruptedModel) -> SeverityLine:
    points = {severity: point for (name, severity), point in model.points.items() if name == kind}
    points = {0: model.clean} | points if points and model.clean is not None else points
    scores = {severity: point.score for severity, point in points.items()}
    return SeverityLine(curve=curve, scores=scores, cells={severity: point.cell for severity, point in points.items()})


def _matrix(named: Sequence[tuple[Curve, CorruptedModel]]) -> Matrix:
    sets = sorted({len(model.points) for _, model in named})
    note = f"Percent [95 % interval]; {' or '.join(map(str, sets))} corrupted sets of test images for each model."
    scores = [model.mean for _, model in named if model.mean is not None]
    note += few_sentence(scores)
    return Matrix(
        name="table",
        title="Under natural corruptions",
        header=["backbone", "data set", "rule", "clean", "under corruptions", "gap to BP", "mCE", "relative mCE"],
        rows=[
            ((curve.backbone_label, curve.dataset_label, style.label(curve.rule_label)), _entries(model))
            for curve, model in named
        ],
        note=note,
        table=_table(named, "table-rows"),
    )


def _entries(model: CorruptedModel) -> list[MatrixCell]:
    beside, missing = model.beside_bp, MatrixCell(lines=["–"], about=model.reason)
    entries = [
        MatrixCell(lines=["not run"], state="not run") if model.clean is None else _score(model.clean.score),
        missing if model.mean is None else _score(model.mean),
    ]
    if beside is None:
        return [*entries, *[missing] * 3]
    is_bp = model.line.rule == "bp"
    gap = "–" if is_bp else f"{style.points(beside.gap)} {'●' if beside.clear else '○'}"
    ratios = ((beside.mce, _NO_ERROR), (beside.relative, _NO_LOSS))
    words = (lacking if value is None else "100" if is_bp else _ratio(value) for value, lacking in ratios)
    return [*entries, MatrixCell(lines=[gap]), *(MatrixCell(lines=[each]) for each in words)]


def _by_kind(context: PageContext, named: Sequence[tuple[Curve, CorruptedModel]]) -> Matrix:
    rules = list(dict.fromkeys(curve.rule_label for curve, _ in named))
    rows: dict[tuple[str, str, str], dict[str, MatrixCell]] = {}
    for curve, model in named:
        for kind in model.by_kind:
            names = curve.backbone_label, curve.dataset_label, kind.replace("_", " ")
            rows.setdefault(names, {})[curve.rule_label] = _of_kind(context, model, kind)
    return Matrix(
        name="kinds",
        title="Each kind, over its severities",
        header=["backbone", "data set", "corruption", *map(style.label, rules)],
        rows=[
            (names, [of_rule.get(rule, MatrixCell(lines=["–"])) for rule in rules]) for names, of_rule in rows.items()
        ],
        note="Percent [95 % interval], and CE. A score leads to the cell of the highest severity, with its images.",
        table=_table(named, "kinds-rows"),
    )


def _of_kind(context: PageContext, model: CorruptedModel, kind: str) -> MatrixCell:
    score, ce = model.by_kind[kind], None if model.beside_bp is None else model.beside_bp.ce.get(kind)
    point = model.points[kind, max(severity for name, severity in model.points if name == kind)]
    return MatrixCell(
        lines=[style.in_table(score)[0], *([] if ce is None else [f"CE {100 * ce.value:.1f}"])],
        search=context.address("cell", cell=point.cell),
        about=style.basis(score),
    )


def _score(score: Interval) -> MatrixCell:
    return MatrixCell(lines=style.in_table(score))


#: Why there is no mCE, and no relative one.
_NO_ERROR = "not defined: BP makes no error under a kind"
_NO_LOSS = "not defined: BP loses nothing to a kind, or a clean score is missing"


def _ratio(value: Ratio) -> str:
    interval = "" if value.seeds == 1 else f" [{100 * value.lo:.1f}, {100 * value.hi:.1f}]"
    return f"{100 * value.value:.1f}{interval}"


def _table(named: Sequence[tuple[Curve, CorruptedModel]], name: str) -> Table:
    rows = [_row(curve, model, row) for curve, model in named for row in corruption_rows(model)]
    return Table(name=name, columns=_COLUMNS, rows=rows)


def _row(curve: Curve, model: CorruptedModel, row: CorruptionRow) -> Mapping[str, Value]:
    values = model_of(curve) | {"kind": row.kind or EVERY} | score_of(row.score)
    values |= {"severity": ALL if row.severity is None else str(row.severity), "cell": row.cell or None}
    if row.gap is not None:
        values |= gap_of(row.gap) | {"clear": excludes(row.clear), "family": model.family}
    return values | _ratios("ce", row.ce) | _ratios("relative", row.relative)


def _ratios(name: str, value: Ratio | None) -> dict[str, Value]:
    # One seed has no interval.
    return {name: value.value} if value is not None and value.seeds == 1 else ends_of(name, value)

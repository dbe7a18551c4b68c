"""A block about calibration: whether a model's confidence on its test images is how often it is right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Matrix, MatrixCell, Table, Value, Words
from orchestrator.pages.columns import BASIS, ends_of, few_sentence, percents, texts, with_ends
from orchestrator.pages.context import PageContext
from orchestrator.results.calibration import Calibration, calibrations
from orchestrator.results.line import Line
from signsym_core.statistics.intervals import Interval

#: Rows at most.
MOST = 60
#: The numbers of a row by the names of their columns, and what they are called; all but `by_chance` are intervals.
_SHOWN = {
    "accuracy": "clean",
    "confidence": "confidence",
    "ece": "ECE",
    "by_chance": "ECE by chance",
    "brier": "Brier score",
}
_COLUMNS = (
    *texts(rule="rule", model="model"),
    *with_ends("accuracy", "clean"),
    *with_ends("confidence", "confidence"),
    *with_ends("ece", "ECE"),
    *percents(by_chance="ECE by chance"),
    *with_ends("brier", "Brier score", "number"),
    *BASIS,
)
_READING = (
    "Confidence is the mean probability that the model gives to its answer: above the clean score it is too sure, "
    "below it too unsure. ECE is the mean distance of the two over 15 bins of confidence, weighted by their images. By "
    "chance is what it would be on average, at so many images, were every confidence right: an ECE near that says "
    "nothing against a model. The Brier score is the mean of (confidence - right)², 0 at best.",
    "ECE's interval is Student's over seeds; one seed has none. Calibration says nothing about attacks: a model may be "
    "sure and right on clean images, and sure and wrong under attack.",
)


def blocks(context: PageContext, lines: Sequence[Line]) -> list[Block]:
    """The calibration of the models of these lines; nothing where no confidence of a clean image is stored."""
    calibrated = calibrations(context.query, context.data.cells, lines[:MOST])
    if not calibrated:
        return []
    if len(lines) > MOST:
        context.problems.append(f"The calibration of the first {MOST} of {len(lines):,} models is here.")
    matrix = Matrix(
        name="calibration",
        title="Calibration on the clean test images",
        header=["rule", "model", *_SHOWN.values()],
        rows=[(_names(context, one), _entries(context, one)) for one in calibrated],
        note="Percent [95 % interval], the Brier score as a number." + few_sentence(one.accuracy for one in calibrated),
        table=Table(name="calibration-rows", columns=_COLUMNS, rows=[_row(context, one) for one in calibrated]),
    )
    return [matrix, Words(title="How to read calibration", sentences=_READING)]


def _names(context: PageContext, one: Calibration) -> tuple[str, str]:
    labels = context.labels
    return style.label(labels.of(one.line, "rule")), labels.title(one.line)


def _entries(context: PageContext, one: Calibration) -> list[MatrixCell]:
    search = context.address("cell", cell=one.cell)
    entries = []
    for name in _SHOWN:
        if name == "by_chance":
            entries.append(MatrixCell(lines=[f"{100 * one.by_chance:.1f}"]))
            continue
        number: Interval = getattr(one, name)
        scale, digits = (1, 3) if name == "brier" else (100, 1)
        ends = f"[{scale * number.lo:.{digits}f}, {scale * number.hi:.{digits}f}]"
        lines = [f"{scale * number.value:.{digits}f}", *([ends] if math.isfinite(number.lo) else [])]
        entries.append(MatrixCell(lines=lines, search=search, about=style.basis(number)))
    return entries


def _row(context: PageContext, one: Calibration) -> Mapping[str, Value]:
    row: dict[str, Value] = dict(zip(("rule", "model"), _names(context, one), strict=True))
    for name in ("accuracy", "confidence", "ece", "brier"):
        number: Interval = getattr(one, name)
        row |= ends_of(name, number) if math.isfinite(number.lo) else {name: number.value}
    row |= {"method": one.accuracy.method, "images": one.accuracy.n, "seeds": one.accuracy.seeds}
    return row | {"by_chance": one.by_chance, "cell": one.cell}

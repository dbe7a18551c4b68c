"""A block about the loss around the test images: why steps along a gradient fail or succeed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Matrix, MatrixCell, Table, Value, Words
from orchestrator.pages.columns import BASIS, ends_of, few_sentence, texts, with_ends
from orchestrator.pages.context import PageContext
from orchestrator.results.geometry import Geometry, geometries, measured_lines
from orchestrator.results.labels import gradient
from orchestrator.results.line import Line
from signsym_core.statistics.intervals import Interval

#: Name of its matrix.
NAME = "geometry"
#: Rows at most.
MOST = 60
#: What a row has, by the key of its column: the words above it, and whether it is a share.
_SHOWN = {
    "cosine": ("cosine to g*", False),
    "sign_agreement": ("pixels of its sign", True),
    "grad_l2": ("|g*|₂", False),
    "grad_l1": ("|g*|₁", False),
    "predicted": ("predicted rise", False),
    "rise": ("rise", False),
    "linearity": ("error", False),
}
_COLUMNS = (
    *texts(rule="rule", model="model", gradient="gradient", epsilon="ε"),
    *(
        column
        for name, (label, share) in _SHOWN.items()
        for column in with_ends(name, label, "percent" if share else "number", (", from", ", to"))
    ),
    *BASIS,
)
_READING = (
    "A sign step takes nothing of a gradient but its signs. Where few pixels have the sign of the exact g* (chance "
    "gives half), a step along it fails for want of direction. That says nothing of the model: what g* breaks does.",
    "All else is the model's, whatever gradient an attack follows. A small |g*|₁ says that the loss is flat at the "
    "images: robust to first order, or saturated, as where the model is sure. The rise is that of one sign step along "
    "g*, and ε |g*|₁ what is predicted of it. Far below that it says that the loss bends away within ε, which hides "
    "what further steps find; far above, that it bends upwards, as the cross-entropy of a model that is sure does. The "
    "error is the mean distance of the rise from its prediction, image by image.",
    "The loss is the cross-entropy in nats, pixels are in [0, 1]. Means over images and seeds with 95 % intervals.",
)


def blocks(context: PageContext, lines: Sequence[Line], epsilon: float) -> list[Block]:
    """What was measured of the models of `lines`, at the ε nearest to this one; nothing without such measurements."""
    chosen = context.view.gradient
    members = [line for line in measured_lines(context.index, lines) if not chosen or line.gradient in chosen]
    measured = geometries(context.query, context.data.cells, members[:MOST], epsilon)
    if not measured:
        return []
    if len(members) > MOST:
        context.problems.append(f"The loss around the images: {MOST} of {len(members):,} lines; narrow the filter.")
    matrix = Matrix(
        name=NAME,
        title="Why a step fails or succeeds: the loss around the test images",
        header=["rule", "model", "gradient", "ε", *(words for words, _ in _SHOWN.values())],
        rows=[(_names(context, one), _entries(context, one)) for one in _without_exact(measured)],
        note="g* is the exact gradient of the loss at a test image. Means over images [95 % interval]."
        + few_sentence(number for one in measured for number in one.means.values()),
        table=Table(name=f"{NAME}-rows", columns=_COLUMNS, rows=[_row(context, one) for one in measured]),
    )
    return [matrix, Words(title="How to read the loss around the images", sentences=_READING)]


def _without_exact(measured: Sequence[Geometry]) -> list[Geometry]:
    """Without the exact gradient of models that have another one: all that it adds is a cosine of 1."""
    others = {one.line.model for one in measured if one.line.gradient != "exact"}
    return [one for one in measured if one.line.gradient != "exact" or one.line.model not in others]


def _names(context: PageContext, one: Geometry) -> tuple[str, str, str, str]:
    labels = context.labels
    rule = style.label(labels.of(one.line, "rule"))
    return rule, labels.title(one.line), style.gradient(gradient(one.line)), one.label


def _numbers(one: Geometry) -> dict[str, Interval]:
    predicted = {} if one.predicted is None else {"predicted": one.predicted}
    known = {**one.means, **predicted}
    return {name: known[name] for name in _SHOWN if name in known}


def _entries(context: PageContext, one: Geometry) -> list[MatrixCell]:
    numbers, search = _numbers(one), context.address("cell", cell=one.cell)
    return [
        MatrixCell(lines=["–"], about="no image has both gradients")
        if name not in numbers
        else MatrixCell(lines=_lines(numbers[name], share), search=search, about=style.basis(numbers[name]))
        for name, (_, share) in _SHOWN.items()
    ]


def _lines(number: Interval, share: bool) -> list[str]:
    if share:
        return [f"{100 * number.value:.1f} %", f"[{100 * number.lo:.1f}, {100 * number.hi:.1f}]"]
    # Two digits of the number at least: norms of a sure model are far below 0.01, and no zeros.
    small = 0 < abs(number.value) < 0.1
    form = ".2g" if small else ".2f" if abs(number.value) < 10 else ".1f"
    return [f"{number.value:{form}}", f"[{number.lo:{form}}, {number.hi:{form}}]"]


def _row(context: PageContext, one: Geometry) -> Mapping[str, Value]:
    row: dict[str, Value] = dict(zip(("rule", "model", "gradient", "epsilon"), _names(context, one), strict=True))
    for name, number in _numbers(one).items():
        row |= ends_of(name, number) | {"method": number.method, "images": number.n, "seeds": number.seeds}
    return row | {"cell": one.cell}

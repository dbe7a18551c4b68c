"""Blocks about alignment: the layers of one training over epochs, and models by the angle of B to W."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.alignment_figures import gradient_angle, layer_figure, survival_figure
from orchestrator.drawing.blocks import Block, Figure, Table, Value, Words
from orchestrator.pages.columns import IMAGES, filled, numbers, percents, score_of, texts
from orchestrator.pages.context import PageContext
from orchestrator.results.angles import AnglePanel, angle_panels
from orchestrator.results.line import Line

_LAYERS = (
    *texts(layer="layer"),
    *numbers(epoch="epoch", angle="B to W, degrees", feedback_ratio="|B| / |W|", gradient="gradient to BP's, degrees"),
    *numbers(cosine="its cosine", ratio="|gradient| / |BP's|"),
    *percents(sign_agreement="equal signs"),
)
_MODELS = (
    *texts(panel="attack", rule="rule"),
    *numbers(angle="angle, degrees"),
    *percents(feedback="own feedback", lo="from", hi="to", exact="exact gradient"),
    *IMAGES,
)
#: Name of the figure of models by their angles.
ANGLES = "angles"
#: Panels at most, and of one row.
MOST, COLUMNS = 12, 2


def layers(context: PageContext, row: int) -> list[Block]:
    """The alignment of the training behind a cell, layer by layer; nothing where the store has none."""
    index = context.index
    rows = context.data.alignment.rows(str(index.value("finetune_job", row)))
    if not rows:
        return []
    title = f"How near the rule is to backpropagation, layer by layer (seed {index.seed[row]})"
    if all(layer["angle"] == 0 for layer in rows):
        return [Words(title=title, sentences=["B is W in every layer and epoch: these are BP's gradients."])]
    table_rows: list[Mapping[str, Value]] = [
        {**{column.key: layer.get(column.key) for column in _LAYERS}, "gradient": gradient_angle(layer["cosine"])}
        for layer in rows
    ]
    note = "Degrees, white is 0: the angle of B to W, and that of the rule's gradient of the weights to BP's, on a few "
    note += "images of each epoch's last step but one. No angle where no matrix stands for W."
    epochs = len({layer["epoch"] for layer in rows})
    return [
        Figure(
            name="alignment",
            title=title,
            described=f"{title}, over {epochs} epochs. The table below has the numbers.",
            figure=layer_figure(rows),
            table=Table(name="alignment", columns=filled(_LAYERS, table_rows), rows=table_rows, note=note),
        )
    ]


def survival(context: PageContext, lines: Sequence[Line], epsilon: float, label: str) -> list[Block]:
    """Whether what survives along the own feedback grows with the angle of B to W; nothing without FEW models."""
    panels = angle_panels(context.query, lines, epsilon, context.data.alignment)
    if not panels:
        return []
    shown, title = panels[:MOST], f"What survives along a model's own feedback, by the angle of B to W, at ε = {label}"
    figure = Figure(
        name=ANGLES,
        title=title,
        described=f"{title}. The table below has the numbers.",
        figure=survival_figure(shown, min(COLUMNS, len(shown))),
        table=Table(name=ANGLES, columns=_MODELS, rows=[row for panel in shown for row in _rows(panel)]),
    )
    sentences = [_sentence(panel) for panel in shown]
    if len(panels) > MOST:
        sentences.append(f"{len(panels) - MOST} more attacks are not shown; narrow the filter.")
    sentences.append(
        "Filled: along the model's own backward pass; hollow: under the exact gradient. The angle is the mean over "
        "layers, in the epoch whose model was kept. Rules without a matrix in the place of W (dfa, local, and those "
        "with a step of their own) have none."
    )
    return [figure, Words(title="Does it grow with the angle?", sentences=sentences, tone="finding")]


def _sentence(panel: AnglePanel) -> str:
    text = f"{panel.title}: rank correlation (Spearman) of the angle with what survives along their own feedback "
    text += f"{_number(panel.correlation)}, over {style.counted(len(panel.members), 'model')}"
    exact = panel.exact_correlation
    return text + ("." if math.isnan(exact) else f"; with what survives the exact gradient {_number(exact)}.")


def _number(correlation: float) -> str:
    return "undefined (all are equal)" if math.isnan(correlation) else f"{correlation:+.2f}"


def _rows(panel: AnglePanel) -> list[Mapping[str, Value]]:
    return [
        {
            "panel": panel.title,
            "rule": style.label(member.curve.rule_label),
            "angle": round(member.angle, 2),
            **score_of(member.point.score, "feedback"),
            "exact": None if member.exact is None else member.exact.score.value,
            "cell": member.point.cell,
        }
        for member in sorted(panel.members, key=lambda member: member.angle)
    ]

"""The figure of trainings: a quantity over epochs in each panel, a line for each rule and a thin one for each seed."""

from __future__ import annotations

import dataclasses
import math
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.drawing import style
from orchestrator.drawing.panels import TITLE_LETTERS, Panels, Spec, Trace, in_lines
from orchestrator.results.trainings import Training

#: What a panel shows, as its title says.
QUANTITIES = {
    "loss": "training loss",
    "validation": "score: validation, ◇ clean test",
    "cosine": "cosine of gradient to BP's",
    "angle": "angle of B to W, degrees",
    "ratio": "|gradient| / |BP's gradient|",
    "feedback_ratio": "|B| / |W|",
}
#: Those drawn on a logarithmic axis.
_RATIOS = ("ratio", "feedback_ratio")
_DIGITS = {"validation": 4, "cosine": 4, "angle": 2}


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingPanel:
    """A quantity of QUANTITIES of the trainings of one setting: of a layer, or the mean over layers."""

    place: str
    quantity: str
    trainings: Sequence[Training]
    layer: str | None = None


def training_figure(panels: Sequence[TrainingPanel | None], columns: int) -> Spec:
    """Panels row by row; None keeps a place empty."""
    titles = ["" if panel is None else _title(panel) for panel in panels]
    figure = Panels([("", ()) for _ in panels], columns, titles, apart=True)
    for number, panel in enumerate(panels):
        if panel is None:
            figure.dress(number, {"visible": False}, {"visible": False})
            continue
        series = {training.model.job: _drawn(panel, training) for training in panel.trainings}
        figure.dress(number, _across(panel), _upright(panel, [v for one in series.values() for v in one.values()]))
        by_rule: dict[str, list[Training]] = {}
        for training in panel.trainings:
            by_rule.setdefault(training.model.rule_label, []).append(training)
        for trainings in by_rule.values():
            figure.add(number, *_traces(panel, trainings, series))
        if panel.quantity in _RATIOS:
            # On a logarithmic axis plotly wants the exponent for shapes.
            figure.reference(number, "y", 0.0)
    return figure.figure()


def _drawn(panel: TrainingPanel, training: Training) -> dict[int, float]:
    series = training.series(panel.quantity, panel.layer)
    # A ratio of 0 has no place on a logarithmic axis.
    return {epoch: value for epoch, value in series.items() if panel.quantity not in _RATIOS or value > 0}


def _title(panel: TrainingPanel) -> str:
    lines = in_lines(panel.place)
    lines += textwrap.wrap(f"layer {panel.layer}", TITLE_LETTERS) if panel.layer is not None else []
    validated = panel.quantity != "validation" or any(training.series("validation") for training in panel.trainings)
    name = QUANTITIES[panel.quantity] if validated else "◇ clean test score"
    return "<br>".join([*map(style.escape, lines), f"<b>{name}</b>"])


def _across(panel: TrainingPanel) -> dict[str, Any]:
    last = max((training.epochs[-1] for training in panel.trainings), default=1)
    # Explicit: an automatic range would replace the one that was zoomed to when new results come.
    axis = {"range": [1 - 0.05 * last, last + 0.05 * last], "title": {"text": "epoch", "standoff": 4}}
    return axis | {"tickformat": "d", "nticks": min(6, last + 1)}


def _upright(panel: TrainingPanel, values: Sequence[float]) -> dict[str, Any]:
    if panel.quantity == "validation":
        return {"range": [-0.03, 1.05], "tickformat": ".0%"}
    if panel.quantity == "cosine":
        return {"range": [min([0.0, *values]) - 0.04, 1.05]}
    if panel.quantity == "angle":
        return {"range": [-4, max([90.0, *values]) + 4], "tickvals": [0, 30, 60, 90, 120, 150, 180]}
    if panel.quantity == "loss":
        return {"range": [0, 1.06 * max(values, default=1.0) or 1.0]}
    ends = [math.log10(value) for value in (*values, 1.0)]
    spread = max(ends) - min(ends)
    room = max(0.05, 0.06 * spread)
    ticks = _ticks(min(ends) - room, max(ends) + room)
    axis = {"type": "log", "range": [min(ends) - room, max(ends) + room]}
    return axis | {"tickvals": ticks, "ticktext": [f"{tick:g}" for tick in ticks]}


def _ticks(low: float, high: float) -> list[float]:
    """Ticks between two powers of ten, denser on a short axis: plotly's own are lone digits there."""
    steps = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9) if high - low < 0.6 else (1, 2, 5) if high - low < 2 else (1,)
    decades = range(math.floor(low), math.ceil(high) + 1)
    return [tick for power in decades for step in steps if low <= math.log10(tick := float(f"{step}e{power}")) <= high]


def _traces(
    panel: TrainingPanel, trainings: Sequence[Training], series: Mapping[str, Mapping[int, float]]
) -> list[Trace]:
    """The seeds of one rule as thin lines, their mean, and their clean scores where the panel is about scores."""
    rule, label = trainings[0].model.rule, trainings[0].model.rule_label
    colour, dash, marker = style.style(rule)
    name = style.escape(style.label(label))
    common: Trace = {"legendgroup": label, "showlegend": False, "cliponaxis": False}
    drawn = [training for training in trainings if series[training.model.job]]
    traces: list[Trace] = []
    if len(drawn) == 1:
        look: Trace = {"mode": "lines+markers", "line": {"width": 2, "dash": dash, "color": colour}}
        look |= {"marker": {"symbol": marker, "size": 6, "color": colour}, "name": name, "showlegend": True}
        traces.append(common | look | _joined(panel, drawn, series))
    elif drawn:
        thin: Trace = {"mode": "lines", "line": {"width": 0.9, "color": colour}, "opacity": 0.5}
        traces.append(common | thin | _joined(panel, drawn, series))
    if len(drawn) > 1:
        means = _means([series[training.model.job] for training in drawn])
        traces.append(
            common
            | {"x": [*means], "y": [_rounded(panel, value) for value in means.values()], "mode": "lines"}
            | {"line": {"width": 2.4, "dash": dash, "color": colour}, "name": name, "showlegend": True}
            | {"hovertemplate": f"<b>{name}</b>, mean of {len(drawn)} seeds<br>epoch %{{x}}: %{{y}}<extra></extra>"}
        )
    scored = [training for training in trainings if training.model.clean is not None]
    if panel.quantity == "validation" and scored:
        texts = [f"<b>{name}</b>, seed {training.model.seed}<br>clean test images" for training in scored]
        traces.append(
            common
            | {"x": [training.history.kept or training.epochs[-1] for training in scored]}
            | {"y": [round(training.model.clean or 0.0, 4) for training in scored], "mode": "markers"}
            | {"marker": {"symbol": "diamond-open", "size": 9, "color": colour}, "hovertext": texts}
            | {"customdata": [training.model.cell for training in scored]}
            | {"hovertemplate": "%{hovertext}: %{y:.1%}<extra></extra>", "name": name, "showlegend": not drawn}
        )
    return traces


def _joined(panel: TrainingPanel, trainings: Sequence[Training], series: Mapping[str, Mapping[int, float]]) -> Trace:
    """The lines of several seeds as one path, whose parts a point without a value separates."""
    xs: list[int | None] = []
    ys: list[float | None] = []
    texts, cells = list[str](), list[str]()
    for training in trainings:
        values, model = series[training.model.job], training.model
        xs += [*values, None]
        ys += [*(_rounded(panel, value) for value in values.values()), None]
        texts += [f"<b>{style.escape(style.label(model.rule_label))}</b>, seed {model.seed}"] * (len(values) + 1)
        cells += [*[model.cell] * len(values), ""]
    template = "%{hovertext}<br>epoch %{x}: %{y}<extra></extra>"
    return {"x": xs, "y": ys, "hovertext": texts, "customdata": cells, "hovertemplate": template}


def _means(series: Sequence[Mapping[int, float]]) -> dict[int, float]:
    """The mean at each epoch that all of them have: one over fewer would jump where a training ended early."""
    common = [epoch for epoch in series[0] if all(epoch in other for other in series)]
    return {epoch: sum(one[epoch] for one in series) / len(series) for epoch in common}


def _rounded(panel: TrainingPanel, value: float) -> float:
    digits = _DIGITS.get(panel.quantity)
    return float(f"{value:.4g}") if digits is None else round(value, digits)

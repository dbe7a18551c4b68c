"""Figures of alignment: a training's layers over epochs, and what survives against the angle of B to W."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.drawing import style
from orchestrator.drawing.panels import Panels, Spec, Trace, looks, title_above
from orchestrator.results.angles import AnglePanel, Survivor

#: White to purple: the dark end of the colours of gaps. At a right angle nothing of W is left in B.
_COLOURS = [[0, "#f7f7f7"], [0.25, "#d8daeb"], [0.5, "#998ec3"], [1, "#542788"]]
#: Epochs of a figure up to which each rectangle has its number.
WRITTEN = 12
#: What the two halves of a figure of layers show.
ANGLES = {"angle": "B to W", "gradient": "gradient to BP's"}


def gradient_angle(cosine: float | None) -> float | None:
    """The angle in degrees whose cosine is `cosine`."""
    return None if cosine is None else math.degrees(math.acos(min(1.0, max(-1.0, cosine))))


def layer_figure(rows: Sequence[Mapping[str, Any]]) -> Spec:
    """Layers down, epochs across: the angle of B to W, and of the rule's gradient to BP's; white is 0 degrees."""
    layers = list(dict.fromkeys(str(row["layer"]) for row in rows))
    epochs = sorted({int(row["epoch"]) for row in rows})
    values = {
        (name, row["layer"], row["epoch"]): row["angle"] if name == "angle" else gradient_angle(row["cosine"])
        for name in ANGLES
        for row in rows
    }
    shown = [name for name in ANGLES if any(values[name, row["layer"], row["epoch"]] is not None for row in rows)]
    height, gap = 108 + 22 * len(layers), 0.04
    layout = looks(height, 200 + 300 * len(shown))
    layout |= {"margin": {"l": 10 + 7 * max(map(len, layers)), "r": 12, "t": 34, "b": 44}, "annotations": []}
    width = (1 - gap * (len(shown) - 1)) / max(1, len(shown))
    data = []
    for number, name in enumerate(shown):
        z = [[values.get((name, layer, epoch)) for epoch in epochs] for layer in layers]
        suffix = "" if number == 0 else str(number + 1)
        domain = [number * (width + gap), number * (width + gap) + width]
        axis = {"showgrid": False, "zeroline": False}
        epoch_axis = {"title": {"text": "epoch", "standoff": 6}, "type": "category", "nticks": 12}
        layout[f"xaxis{suffix}"] = axis | epoch_axis | {"domain": domain, "anchor": f"y{suffix}"}
        downward = {"autorange": "reversed", "anchor": f"x{suffix}", "showticklabels": not number}
        layout[f"yaxis{suffix}"] = axis | downward
        data.append(
            {
                "type": "heatmap",
                "x": epochs,
                "y": [style.escape(layer) for layer in layers],
                "z": [[None if value is None else round(value, 2) for value in row] for row in z],
                "text": [["" if value is None else f"{value:.0f}" for value in row] for row in z],
                "texttemplate": "%{text}" if len(epochs) <= WRITTEN else "",
                "hovertemplate": f"{ANGLES[name]}: %{{z:.1f}}°<br>%{{y}}, epoch %{{x}}<extra></extra>",
                "hoverongaps": False,
                "colorscale": _COLOURS,
                "zmin": 0,
                "zmax": 90,
                "showscale": number == len(shown) - 1,
                "colorbar": {
                    **{"thickness": 12, "tickvals": [0, 30, 60, 90]},
                    "title": {"text": "degrees", "side": "right"},
                },
                "xgap": 1,
                "ygap": 1,
                "xaxis": f"x{suffix}",
                "yaxis": f"y{suffix}",
            }
        )
        layout["annotations"].append(title_above(f"<b>{ANGLES[name]}</b>", sum(domain) / 2, 1))
    return {"data": data, "layout": layout}


def survival_figure(panels: Sequence[AnglePanel], columns: int) -> Spec:
    """What survives along each model's own backward pass (filled), and the exact gradient (hollow), over its angle."""
    figure = Panels([(panel.title, [member.curve for member in panel.members]) for panel in panels], columns)
    farthest = max(90.0, *(member.angle for panel in panels for member in panel.members))
    across = {"range": [-4, farthest + 4], "tickvals": [0, 30, 60, 90]}
    across |= {"title": {"text": "mean angle of B to W, degrees", "standoff": 6}}
    looks_by_rule = {m.curve.rule_label: style.style(m.curve.rule) for panel in panels for m in panel.members}
    # A family of rules has more members than there are colours.
    written = len(set(looks_by_rule.values())) < len(looks_by_rule)
    for number, panel in enumerate(panels):
        figure.dress(number, across, figure.scores)
        for member in panel.members:
            figure.add(number, *_traces(member, written))
        figure.reference(number, "y", panel.members[0].curve.chance, "chance")
    return figure.figure()


def _written(name: str, value: float) -> Trace:
    """The name of a marker beside it, without parameters."""
    place = "bottom center" if value > 0.5 else "top center"
    font = {"size": 9, "color": style.REFERENCE}
    return {"mode": "markers+text", "text": [name.partition("(")[0]], "textposition": place, "textfont": font}


def _traces(member: Survivor, written: bool) -> list[Trace]:
    colour, _, marker = style.style(member.curve.rule)
    name = style.escape(style.label(member.curve.rule_label))
    common: Trace = {"x": [round(member.angle, 2)], "mode": "markers", "legendgroup": member.curve.rule_label}
    common |= {"cliponaxis": False, "customdata": [member.point.cell]}
    score, text = member.point.score, f"<b>{name}</b>, {member.angle:.1f}°<br>"
    bars: dict[str, Any] = {"type": "data", "symmetric": False, "thickness": 1, "width": 0, "color": colour}
    bars |= {"array": [round(score.hi - score.value, 4)], "arrayminus": [round(score.value - score.lo, 4)]}
    filled = {
        **common,
        **(_written(name, score.value) if written else {}),
        "y": [round(score.value, 4)],
        "name": name,
        "marker": {"symbol": marker, "size": 9, "color": colour},
        "error_y": bars,
        "hovertemplate": f"{text}along its own backward pass {style.percent(score)}<extra></extra>",
        "showlegend": True,
    }
    if member.exact is None:
        return [filled]
    hollow = {
        **common,
        "y": [round(member.exact.score.value, 4)],
        "marker": {"symbol": f"{marker}-open", "size": 8, "color": colour},
        "customdata": [member.exact.cell],
        "hovertemplate": f"{text}under the exact gradient {style.percent(member.exact.score)}<extra></extra>",
        "showlegend": False,
    }
    return [filled, hollow]

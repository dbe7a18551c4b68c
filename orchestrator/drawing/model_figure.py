"""The figure of the overview: what the strongest attack along each gradient leaves of each model."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from orchestrator.drawing import style
from orchestrator.drawing.panels import Spec, in_lines, looks
from orchestrator.results.judgements import AttackScore
from signsym_core.auditing.verdict import Verdict

#: Heights in pixels: of a model's row, of each further line of a name, and above and below all rows.
ROW, LINE, ABOVE, BELOW = 30, 15, 26, 78


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelRow:
    """One model: a setting under one rule, over its seeds."""

    rule: str
    rule_label: str
    place: str
    score_name: str
    clean: AttackScore | None
    feedback: AttackScore | None
    exact: AttackScore | None
    verdict: Verdict
    #: The verdict as the table prints it.
    words: str
    #: Whether its units spike, so that its exact gradient is a surrogate's.
    spikes: bool


def model_figure(rows: Sequence[ModelRow], several: bool) -> Spec:
    """A line from the exact gradient's score to the own feedback's for each model, with their intervals."""
    names = [_name(f"{row.place}, {row.rule_label}") if several else style.escape(row.rule_label) for row in rows]
    row_height = ROW + LINE * max((name.count("<br>") for name in names), default=0)
    data = []
    for name, row in zip(names, rows, strict=True):
        colour = style.style(row.rule)[0]
        if row.feedback is not None and row.exact is not None:
            ends = [row.exact.score.value, row.feedback.score.value]
            line = {"color": colour, "width": 4}
            data.append({"x": ends, "y": [name, name], "mode": "lines", "line": line, "hoverinfo": "skip"})
        for kind, score in (("clean", row.clean), ("exact", row.exact), ("feedback", row.feedback)):
            if score is not None:
                data.append(_mark(name, kind, score, colour))
    for trace in data:
        trace["showlegend"] = False
    data += [_key(kind) for kind in _LOOKS]
    # So wide that the legend is one line, which does not reach up to the axis.
    layout = looks(ABOVE + row_height * len(rows) + BELOW, 680)
    layout["margin"] = {"l": 12, "r": 16, "t": ABOVE, "b": BELOW}
    # From the left of the figure, not of the axis, beside which names may leave little room.
    layout["legend"] |= {"y": 0, "yanchor": "bottom", "xref": "container"}
    axis = {"gridcolor": "#e6e8ec", "zeroline": False}
    title = {"text": style.scores(row.score_name for row in rows), "standoff": 4}
    layout["xaxis"] = {**axis, "range": [-0.02, 1.02], "tickformat": ".0%", "title": title}
    order = {"categoryorder": "array", "categoryarray": names[::-1], "range": [-0.6, len(rows) - 0.4]}
    layout["yaxis"] = {**axis, **order, "type": "category", "automargin": True}
    return {"data": data, "layout": layout}


def _name(text: str) -> str:
    """A model's name over several lines: beside a long one in one line nothing else would be seen on a phone."""
    return "<br>".join(map(style.escape, in_lines(text)))


#: Words and marker of each kind of score.
_LOOKS = {
    "clean": ("clean", "line-ns-open", 14),
    "feedback": ("under its own feedback", "circle-open", 13),
    "exact": ("under the exact gradient: the result", "circle", 13),
}


def _mark(name: str, kind: str, score: AttackScore, colour: str) -> dict[str, object]:
    words, symbol, size = _LOOKS[kind]
    value = score.score
    bars = {"type": "data", "symmetric": False, "array": [value.hi - value.value], "thickness": 1.4, "width": 4}
    bars |= {"arrayminus": [value.value - value.lo]}
    attack = "" if kind == "clean" else f", {style.escape(score.run[0])}"
    text = f"{name}, {words}{attack}: {style.percent(value)}<br>of {style.rests_on(value)}"
    return {
        "x": [value.value],
        "y": [name],
        "mode": "markers",
        "marker": {"symbol": symbol, "size": size, "color": colour, "line": {"width": 2.5, "color": colour}},
        "error_x": bars | {"color": colour},
        "hovertemplate": f"{text}<extra></extra>",
    }


def _key(kind: str) -> dict[str, object]:
    """An entry of the legend, without a point."""
    words, symbol, size = _LOOKS[kind]
    marker = {"symbol": symbol, "size": size - 2, "color": style.REFERENCE, "line": {"width": 2.5}}
    return {"x": [None], "y": [None], "mode": "markers", "marker": marker, "name": words, "hoverinfo": "skip"}

"""The figure of a transfer matrix: what the examples of one rule's models leave of another's."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from orchestrator.drawing import style
from orchestrator.drawing.heat_map import Field, heat_trace
from orchestrator.drawing.panels import Spec, looks
from orchestrator.results.curve import Point

#: White to orange: the other end of the colours of gaps. What fools more is darker.
_COLOURS = [[0, "#b35806"], [0.25, "#f1a340"], [0.6, "#fee0b6"], [1, "#f7f7f7"]]
#: The row of clean scores.
CLEAN = "no attack"


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransferEntry:
    """What one surrogate's examples leave of one rule's models."""

    #: The surrogate in words, or CLEAN.
    made_on: str
    #: The attacked rule as figures print it.
    attacked: str
    point: Point
    #: Whether both are one model.
    white_box: bool = False


def transfer_figure(entries: Sequence[TransferEntry], score_name: str) -> Spec:
    """Surrogates down, attacked rules across, in the order of the entries. Bold with a ◆: a white-box attack."""
    heat, rows, columns = heat_trace(
        {(entry.made_on, entry.attacked): entry for entry in entries},
        lambda entry: Field(100 * entry.point.score.value, _in_cell(entry), _hover(entry), entry.point.cell),
        _COLOURS,
        f"{score_name}, %",
    )
    heat |= {"zmin": 0, "zmax": 100}
    heat["colorbar"]["tickvals"] = [0, 25, 50, 75, 100]
    left = 46 + 7 * max(map(len, rows))
    layout = looks(96 + 44 * len(rows), left + 90 + 84 * len(columns))
    layout |= {"margin": {"l": left, "r": 12, "t": 44, "b": 12}}
    title = {"text": "attacked model", "standoff": 4}
    layout["xaxis"] = {"showgrid": False, "zeroline": False, "side": "top", "title": title}
    layout["yaxis"] = {"showgrid": False, "zeroline": False, "autorange": "reversed"}
    layout["yaxis"]["title"] = {"text": "examples made on", "standoff": 6}
    return {"data": [heat], "layout": layout}


def _in_cell(entry: TransferEntry) -> str:
    score = entry.point.score
    text, bounds = f"{100 * score.value:.1f}", f"[{100 * score.lo:.1f}, {100 * score.hi:.1f}]"
    return f"<b>{text} ◆</b><br>{bounds}" if entry.white_box else f"{text}<br>{bounds}"


def _hover(entry: TransferEntry) -> str:
    score = entry.point.score
    text = f"<b>{style.escape(entry.attacked)}</b> under examples of {style.escape(entry.made_on)}"
    if entry.made_on == CLEAN:
        text = f"<b>{style.escape(entry.attacked)}</b>, no attack"
    box = "<br>the model's own exact gradient: a white-box attack" * entry.white_box
    return f"{text}<br>{style.percent(score)}, of {style.rests_on(score)}, {style.method(score)}{box}"

"""Figures ready for a paper, drawn without a browser: SVG and PDF with fonts inside, as wide as one or two columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.explorer import style
from orchestrator.explorer.drawing import Drawing, Stroke
from orchestrator.explorer.writing import write

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Inches of a figure of one column, and of two.
WIDTHS = (3.3, 6.75)
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
_MARKERS = {
    **{"circle": "o", "x": "X", "square": "s", "diamond": "D", "triangle-up": "^"},
    **{"star": "*", "hexagon": "h", "cross": "P"},
}
_SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    "font.size": 8,
    "axes.titlesize": 7.5,
    "legend.fontsize": 8,
}


def save(drawing: Drawing, stem: Path, search: str) -> list[Path]:
    """Write STEM-3.3in and STEM-6.75in as SVG and PDF, STEM.csv with the numbers and STEM.json with the view's address.

    The files that people open, in this order. Text is never read as a formula, whatever names the store holds.
    """
    import matplotlib as mpl

    written = []
    with mpl.rc_context(_SETTINGS):
        for width in WIDTHS:
            figure = _drawn(drawing, width)
            for kind in ("svg", "pdf"):
                path = stem.with_name(f"{stem.name}-{width:g}in.{kind}")
                # Without a date the same numbers give the same file.
                stamp = {"Date": None} if kind == "svg" else {"CreationDate": None}
                figure.savefig(path, metadata=stamp)
                written.append(path)
    write(stem.with_name(f"{stem.name}.csv"), drawing.as_csv())
    write(stem.with_name(f"{stem.name}.json"), json.dumps({"view": search, "widths_in": WIDTHS}, indent=1))
    return written


def _drawn(drawing: Drawing, width: float) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 if width < 5 else min(drawing.columns, 3)
    rows = -(-len(drawing.panels) // columns)
    figure = Figure(figsize=(width, 0.45 + 2.0 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    handles: dict[str, Line2D] = {}
    for at, axes in enumerate(grid.flat):
        if at >= len(drawing.panels):
            axes.set_visible(False)
            continue
        title, strokes = drawing.panels[at]
        axes.set_title(_broken(title), parse_math=False)
        places = _ticks(axes, strokes, drawing.norm)
        for stroke in strokes:
            handles.setdefault(stroke.label, _line(axes, stroke, places))
        if drawing.difference:
            axes.axhline(0, color="0.5", linewidth=0.8, zorder=0)
        else:
            axes.set_ylim(-0.02, 1.02)
        if at % columns == 0:
            axes.set_ylabel(drawing.quantity, parse_math=False)
        axes.yaxis.set_major_formatter(lambda value, _at: f"{100 * value:.0f}")
        axes.grid(color="0.9", linewidth=0.5)
        axes.spines[["top", "right"]].set_visible(False)
    legend = figure.legend(list(handles.values()), list(handles), loc="outside upper center", ncols=5, frameon=False)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _line(axes: Axes, stroke: Stroke, places: Mapping[str, int]) -> Line2D:
    colour, dash, marker = style.style(stroke.rule)
    x = [places[label] for label in stroke.labels]
    y = [score.value for score in stroke.scores]
    axes.fill_between(
        x, [s.lo for s in stroke.scores], [s.hi for s in stroke.scores], color=colour, alpha=0.12, linewidth=0
    )
    (line,) = axes.plot(
        x, y, color=colour, linestyle=_DASHES[dash], marker=_MARKERS[marker], markersize=4, linewidth=1.2
    )
    hollow = [(a, b) for a, b, filled in zip(x, y, stroke.filled, strict=True) if not filled]
    if hollow:
        axes.plot(
            *zip(*hollow, strict=True), linestyle="", marker=_MARKERS[marker], markersize=4, color=colour, mfc="w"
        )
    return line


def _ticks(axes: Axes, strokes: tuple[Stroke, ...], norm: str) -> dict[str, int]:
    """Name the epsilons, one step apart; the place of each."""
    found = sorted({pair for s in strokes for pair in zip(s.epsilons, s.labels, strict=True)})
    axes.set_xticks(range(len(found)), [label for _, label in found], parse_math=False)
    axes.set_xlabel(f"ε ({norm}, [0, 1] pixels), scores in %", parse_math=False)
    return {label: at for at, (_, label) in enumerate(found)}


def _broken(title: str) -> str:
    """A long title over two lines."""
    place, slash, attack = title.rpartition(" / ")
    return f"{place}\n{attack}" if slash and len(title) > 34 else title

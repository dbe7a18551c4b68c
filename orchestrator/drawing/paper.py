"""Figures ready for a paper, drawn without a browser: SVG and PDF with fonts inside, as wide as one or two columns."""

from __future__ import annotations

import io
import json
import math
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from orchestrator.drawing import style
from orchestrator.drawing.axes import NAMES, Axes, Axis
from orchestrator.drawing.figure_data import Drawing, Stroke
from orchestrator.drawing.figures import MANY, USUAL
from orchestrator.drawing.panels import TITLE_LETTERS, in_lines
from orchestrator.results.curve import few
from orchestrator.store.files import write_file

if TYPE_CHECKING:
    from matplotlib.axes import Axes as Plot
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

#: Inches of a figure of one column, and of two.
WIDTHS = (3.3, 6.75)
_DASHES = {"solid": "-", "dash": "--", "dot": ":", "dashdot": "-.", "longdash": (0, (8, 3))}
_MARKERS = {
    **{"circle": "o", "x": "X", "square": "s", "diamond": "D", "triangle-up": "^"},
    **{"star": "*", "hexagon": "h", "cross": "P"},
}
#: Legend entries of dashes, thin lines and rings.
_SEED, _SEEDS, _FLAGGED = "one seed", "all seeds", "flagged"
#: Dots per inch of pictures; of others matplotlib lays out for 72.
DPI = {"png": 300}
_SETTINGS: dict[Any, Any] = {
    "pdf.fonttype": 42,
    "svg.fonttype": "path",
    # Otherwise the names of its parts are drawn at random.
    "svg.hashsalt": "signsym",
    "font.size": 8,
    "axes.titlesize": 7.5,
    "legend.fontsize": 8,
}


def save(drawing: Drawing, stem: Path, search: str) -> list[Path]:
    """Write STEM-3.3in and STEM-6.75in as SVG and PDF, STEM.csv with the numbers and STEM.json with the view's address.

    Returns the paths in this order. Text is never parsed as a formula, whatever names the store holds.
    """
    written: dict[Path, bytes] = {}
    for width in WIDTHS:
        of_kinds = _drawn(drawing, width, ("svg", "pdf"))
        written |= {stem.with_name(f"{stem.name}-{width:g}in.{kind}"): data for kind, data in of_kinds.items()}
    address = {"view": drawing.view or search, "widths_in": WIDTHS}
    written[stem.with_name(f"{stem.name}.csv")] = drawing.as_csv().encode()
    written[stem.with_name(f"{stem.name}.json")] = json.dumps(address, indent=1).encode()
    for path, content in written.items():
        write_file(path, content)
    return list(written)


def drawn(drawing: Drawing, width: float, kind: str) -> bytes:
    """The figure, `width` inches wide, as "svg", "pdf" or "png"."""
    return _drawn(drawing, width, [kind])[kind]


def _drawn(drawing: Drawing, width: float, kinds: Sequence[str]) -> dict[str, bytes]:
    import matplotlib as mpl
    from matplotlib.backend_bases import get_registered_canvas_class

    # Without a date the same numbers give the same file.
    without_date = {"svg": {"metadata": {"Date": None}}, "pdf": {"metadata": {"CreationDate": None}}}
    files: dict[str, bytes] = {}
    with mpl.rc_context(_SETTINGS):
        figure = _figure(drawing, width)
        # Laid out once, and here: to save a figure that has a layout engine draws it once more before, for nothing.
        get_registered_canvas_class(kinds[0])(figure)
        figure.set_dpi(DPI.get(kinds[0], 72))
        if (engine := figure.get_layout_engine()) is not None:
            engine.execute(figure)
            figure.set_layout_engine(None)
        for kind in kinds:
            settings: dict[str, Any] = without_date.get(kind, {"dpi": DPI.get(kind)})
            sink = io.BytesIO()
            figure.savefig(sink, format=kind, **settings)
            files[kind] = sink.getvalue()
    return files


def _figure(drawing: Drawing, width: float) -> Figure:
    from matplotlib.figure import Figure

    columns = 1 if width < 5 else min(drawing.columns, 3)
    rows = -(-len(drawing.panels) // columns)
    figure = Figure(figsize=(width, 0.5 + 2.15 * rows), layout="constrained")
    grid = figure.subplots(rows, columns, sharey=True, squeeze=False)
    # As on the page: the panels of a norm share an axis.
    scales = Axes([stroke.curve for _, strokes in drawing.panels for stroke in strokes], "ordinal")
    handles: dict[str, Line2D] = {}
    for number, plot in enumerate(grid.flat):
        if number >= len(drawing.panels):
            plot.set_visible(False)
            continue
        title, strokes = drawing.panels[number]
        # At y, else matplotlib looks again, at each drawing, whether something is in its way.
        plot.set_title(_titled(title, strokes), pad=11, y=1.0, parse_math=False)
        axis = scales.of([stroke.curve for stroke in strokes])
        _dressed(plot, axis, strokes, drawing)
        if "bands" not in drawing.hide and strokes:
            _bands(plot, strokes, axis)
        for stroke in strokes:
            for name, handle in _line(plot, stroke, axis, drawing.hide).items():
                handles.setdefault(name, handle)
        if number % columns == 0:
            plot.set_ylabel(drawing.quantity, parse_math=False)
    # Rules first, in their order.
    names = sorted(handles, key=(_SEED, _SEEDS, _FLAGGED).count)
    place: dict[str, Any] = {"loc": "outside upper center", "ncols": 3 if columns == 1 else 7, "frameon": False}
    legend = figure.legend([handles[name] for name in names], names, **place)
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _dressed(plot: Plot, axis: Axis, strokes: Sequence[Stroke], drawing: Drawing) -> None:
    """Set axes and reference lines."""
    difference = drawing.difference
    plot.set_xticks([axis.position(epsilon) for epsilon in axis.labels], list(axis.labels.values()), parse_math=False)
    if sum(len(text) + 1 for text in axis.labels.values()) > NAMES[-1]:
        plot.tick_params(axis="x", rotation=45)
    plot.set_xlabel(drawing.across or f"ε ({axis.norms}, [0, 1] pixels)", parse_math=False)
    plot.yaxis.set_major_formatter(lambda value, _position: f"{100 * value:{'+' if difference else ''}.0f}")
    plot.grid(color="0.9", linewidth=0.5)
    plot.spines[["top", "right"]].set_visible(False)
    if difference:
        plot.axhline(0, color=style.REFERENCE, linewidth=0.8, zorder=0)
        return
    plot.set_ylim(-0.03, 1.05)
    if not strokes:
        return
    dotted: dict[str, Any] = {"color": style.REFERENCE, "linewidth": 0.8, "linestyle": ":", "zorder": 1}
    words: dict[str, Any] = {"color": style.REFERENCE, "fontsize": 6.5, "va": "bottom"}
    chance = strokes[0].curve.chance
    plot.axhline(chance, **dotted)
    # At the left, where the curves are still high.
    plot.text(0.01, chance, "chance", transform=plot.get_yaxis_transform(), **words)
    if not drawing.across and {stroke.curve.norm for stroke in strokes} == {"linf"} and axis.within(USUAL):
        plot.axvline(axis.position(USUAL), **dotted)
        plot.text(axis.position(USUAL), 1, "8/255", transform=plot.get_xaxis_transform(), ha="center", **words)


def _bands(plot: Plot, strokes: Sequence[Stroke], axis: Axis) -> None:
    """Draw the bands of all lines of a panel, as one artist."""
    from matplotlib.collections import PolyCollection

    outlines = []
    for stroke in strokes:
        lower = [(axis.position(dot.epsilon), dot.score.lo) for dot in stroke.dots]
        upper = [(axis.position(dot.epsilon), dot.score.hi) for dot in reversed(stroke.dots)]
        outlines.append([*lower, *upper])
    colours = [style.style(stroke.curve.rule)[0] for stroke in strokes]
    plot.update_datalim([corner for outline in outlines for corner in outline])
    plot.add_collection(PolyCollection(outlines, facecolors=colours, alpha=0.12, linewidths=0), autolim=False)


def _line(plot: Plot, stroke: Stroke, axis: Axis, hide: Collection[str]) -> dict[str, Line2D]:
    """Draw a line with its seeds and rings, but for those that `hide` names; their entries in the legend."""
    colour, dash, marker = style.style(stroke.curve.rule)
    shape: dict[str, Any] = {"marker": _MARKERS[marker], "markersize": 4, "color": colour}
    x = [axis.position(dot.epsilon) for dot in stroke.dots]
    scores = [dot.score for dot in stroke.dots]
    (line,) = plot.plot(x, [s.value for s in scores], linestyle=_DASHES[dash], linewidth=1.2, **shape)
    legend = {stroke.label: line}
    hollow = [(position, dot.score.value) for position, dot in zip(x, stroke.dots, strict=True) if not dot.filled]
    if hollow:
        plot.plot(*zip(*hollow, strict=True), linestyle="", mfc="w", **shape)
    marks: dict[str, Any] = {
        "linestyle": "",
        "marker": "_",
        "markersize": 4,
        "markeredgewidth": 1.2,
        "alpha": 0.6,
        "color": colour,
    }
    drawn = [{} if "seeds" in hide else dot.by_seed for dot in stroke.dots]
    few = [(position, by_seed) for position, by_seed in zip(x, drawn, strict=True) if len(by_seed) <= MANY]
    seeds = [(position, value) for position, by_seed in few for value in by_seed.values()]
    if seeds:
        (one,) = plot.plot(*zip(*seeds, strict=True), **marks)
        legend[_SEED] = one
    many = [(position, by_seed.values()) for position, by_seed in zip(x, drawn, strict=True) if len(by_seed) > MANY]
    if many:
        # One path in all, which NaN interrupts.
        ranges = [(at, value) for at, values in many for value in (min(values), max(values), math.nan)][:-1]
        (legend[_SEEDS],) = plot.plot(*zip(*ranges, strict=True), color=colour, linewidth=1.2, alpha=0.6)
    ringed = [(position, dot.score.value) for position, dot in zip(x, stroke.dots, strict=True) if dot.flags]
    if ringed and "rings" not in hide:
        looks: dict[str, Any] = {"linestyle": "", "marker": "o", "markersize": 8, "mfc": "none", "mec": style.RING}
        (ring,) = plot.plot(*zip(*ringed, strict=True), clip_on=False, **looks)
        legend[_FLAGGED] = ring
    return legend


def _titled(title: str, strokes: Sequence[Stroke]) -> str:
    """The panel's name, a long one over several lines, with its numbers of images and seeds."""
    place, _, attack = title.rpartition(" / ")
    long = len(title) > TITLE_LETTERS
    name = "\n".join([*in_lines(place), attack]) if long else title
    if not strokes:
        return f"{name}\nnot run"
    numbers = [dot.score for stroke in strokes for dot in stroke.dots]
    return f"{name}\n{'few: ' * few(numbers)}{style.bases(numbers)}"

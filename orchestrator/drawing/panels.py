"""Panels in rows and columns, as plain values in plotly's format.

Plotly's objects check every value and copy every figure several times, which took most of the time of a page.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from orchestrator.drawing import style
from orchestrator.results.curve import Curve, few
from signsym_core.statistics.intervals import Interval

#: A figure, {"data": [...], "layout": {...}}, and one of its traces.
Spec = dict[str, Any]
Trace = dict[str, Any]
#: Title and lines of a panel.
PanelCurves = tuple[str, Sequence[Curve]]
#: Pixels of a row of panels: its titles of three lines, a further line of them, the panels, and the names of epsilons
#: below them.
TITLES, TITLE_LINE, PLOT, BELOW = 58, 16, 200, 66
#: Letters of a title that fit above a panel.
TITLE_LETTERS = 34
#: Pixels above and below all rows, and of a panel's width at least.
TOP, BOTTOM, WIDTH = 44, 6, 236
#: Letters of a hashed key that identify it.
SHORT = 16
_GRID = {"gridcolor": "#e6e8ec", "zeroline": False, "linecolor": "#c9ccd1", "showline": True, "ticks": ""}


class Panels:
    """The figure of some panels, row by row; axes, lines and traces are added panel by panel."""

    def __init__(
        self, panels: Sequence[PanelCurves], columns: int, titles: Sequence[str] | None = None, apart: bool = False
    ) -> None:
        """`titles` are by default made from the panels' lines; where panels are `apart` each has its vertical axis."""
        self.columns, self.rows = columns, max(1, -(-len(panels) // columns))
        names = style.scores(curve.score_name for _, curves in panels for curve in curves)
        #: The vertical axis of scores.
        self.scores = {"range": [-0.03, 1.05], "tickformat": ".0%", "title": {"text": names, "standoff": 6}}
        self._data: list[Trace] = []
        self._named: set[str] = set()
        self._shapes: list[dict[str, Any]] = []
        self._axes: dict[str, Any] = {}
        # Room for the numbers of each panel's own axis.
        gap = 0.18 / columns if apart else min(0.03, 0.1 / columns)
        width = (1 - gap * (columns - 1)) / columns
        titles = titles or [
            panel_title(title, [point.score for curve in curves for point in curve.points]) for title, curves in panels
        ]
        titles_height = TITLES + TITLE_LINE * (max([2, *(title.count("<br>") for title in titles)]) - 2)
        row = self._row = titles_height + PLOT + BELOW
        self._titles: list[dict[str, Any]] = []
        numbered: set[int] = set()
        for number, (title, (_, curves)) in enumerate(zip(titles, panels, strict=True)):
            down, across = divmod(number, columns)
            left, upper = across * (width + gap), 1 - (down * row + titles_height) / (self.rows * row)
            lower = upper - PLOT / (self.rows * row)
            x, y = _axis("x", number), _axis("y", number)
            self._axes[x] = {**_GRID, "anchor": _place("y", number), "domain": [left, left + width]}
            self._axes[y] = {**_GRID, "anchor": _place("x", number), "domain": [lower, upper]}
            # A row's tick labels are at its first panel that has lines.
            self._axes[y]["showticklabels"] = apart or (bool(curves) and down not in numbered)
            if curves:
                numbered.add(down)
            self._titles.append(title_above(title, left + width / 2, upper))

    def dress(self, panel: int, x: Mapping[str, Any], y: Mapping[str, Any]) -> None:
        """Set the axes of a panel."""
        self._axes[_axis("x", panel)] |= x
        self._axes[_axis("y", panel)] |= y
        if not self._axes[_axis("y", panel)]["showticklabels"]:
            self._axes[_axis("y", panel)].pop("title", None)

    def add(self, panel: int, *traces: Trace) -> None:
        """Add traces to a panel. Of those of a group that ask for an entry in the legend only the first gets it."""
        place = {"xaxis": _place("x", panel), "yaxis": _place("y", panel)}
        for trace in traces:
            if trace["showlegend"]:
                trace["showlegend"] = trace["legendgroup"] not in self._named
                self._named.add(trace["legendgroup"])
            self._data.append(trace | place)

    def reference(self, panel: int, axis: str, value: float, words: str = "", **line: Any) -> None:
        """A line across a panel at a value of "x" or "y", with a label at its start."""
        across = "x" if axis == "y" else "y"
        place: dict[str, Any] = {f"{axis}0": value, f"{axis}1": value, f"{axis}ref": _place(axis, panel)}
        place |= {f"{across}0": 0, f"{across}1": 1, f"{across}ref": f"{_place(across, panel)} domain"}
        if words:
            font = {"size": 10, "color": style.REFERENCE}
            # Horizontal, at the left and at the bottom, where curves are rare.
            place["label"] = {"text": words, "textposition": "start", "textangle": 0, "font": font, "padding": 2}
            place["label"] |= {"xanchor": "left", "yanchor": "bottom"}
        self._shapes.append(
            {"type": "line", "line": {"color": style.REFERENCE, "width": 1, "dash": "dot"} | line, **place}
        )

    def figure(self) -> Spec:
        """The finished figure."""
        height = TOP + BOTTOM + self.rows * self._row
        _shorten(self._data)
        layout = looks(height, 62 + WIDTH * self.columns) | self._axes
        return {"data": self._data, "layout": layout | {"shapes": self._shapes, "annotations": self._titles}}


def looks(height: int, width: int) -> dict[str, Any]:
    """The layout of all figures. Backgrounds are transparent, for light and for dark pages.

    `width` is the smallest width of the figure, which the page respects.
    """
    ink = {"color": "#2a2d32"}
    return {
        "height": height,
        "font": {"family": style.FONT, "size": 12, **ink},
        "margin": {"l": 56, "r": 12, "t": TOP, "b": BOTTOM},
        "legend": {
            **{"orientation": "h", "y": 1, "yanchor": "top", "yref": "container", "x": 0},
            "font": {"size": 14, **ink},
        },
        "hoverlabel": {"align": "left"},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "modebar": {"bgcolor": "rgba(0,0,0,0)", "color": "#6b7078", "activecolor": "#1c1d1f"},
        "meta": {"width": width},
    }


def axes_of(figure: Spec) -> dict[str, dict[str, Any]]:
    """The axes of a figure by name."""
    return {name: axis for name, axis in figure["layout"].items() if name[:5] in ("xaxis", "yaxis")}


def in_lines(name: str, letters: int = TITLE_LETTERS) -> list[str]:
    """A name in lines of so many letters at most: names of settings are long, and break at spaces alone."""
    return textwrap.wrap(name, letters, break_on_hyphens=False)


def panel_title(title: str, numbers: Sequence[Interval]) -> str:
    """The panel's name with the images and seeds of its numbers, in a warning colour where these are few."""
    place, _, attack = title.rpartition(" / ")
    name = "<br>".join([*map(style.escape, in_lines(place)), f"<b>{style.escape(attack)}</b>"])
    if not numbers:
        return f"{name}<br>not run"
    rests = style.bases(numbers)
    if few(numbers):
        rests = f"<span style='color:{style.WARNING}'>few: {rests}</span>"
    return f"{name}<br>{rests}"


def title_above(text: str, x: float, y: float) -> dict[str, Any]:
    """The title of a panel, above its middle: `x` and `y` are shares of the figure."""
    place = {"x": x, "xref": "paper", "xanchor": "center", "y": y, "yref": "paper", "yanchor": "bottom"}
    return {"text": text, "showarrow": False, "font": {"size": 12}, **place}


def _shorten(data: Sequence[Trace]) -> None:
    """Shorten the keys of the markers to SHORT letters where these are unique: keys were a sixth of a page."""
    keys = [key for trace in data for key in trace.get("customdata", ())]
    if len({key[:SHORT] for key in keys}) == len(set(keys)):
        for trace in data:
            if "customdata" in trace:
                trace["customdata"] = [key[:SHORT] for key in trace["customdata"]]


def _axis(axis: str, panel: int) -> str:
    return f"{axis}axis{'' if panel == 0 else panel + 1}"


def _place(axis: str, panel: int) -> str:
    return f"{axis}{'' if panel == 0 else panel + 1}"

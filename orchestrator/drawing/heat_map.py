"""What heat maps have in common: named rows and columns, each field with its number, text, hover text and cell."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from orchestrator.drawing import style
from orchestrator.drawing.panels import Spec

T = TypeVar("T")


class Field(NamedTuple):
    """One field: its number in percent or points, the text in it and over it, and the cell that it links to."""

    number: float
    text: str
    hover: str
    cell: str


def heat_trace(
    by_place: Mapping[tuple[str, str], T], field: Callable[[T], Field], colours: Sequence[Any], bar: str
) -> tuple[Spec, list[str], list[str]]:
    """The trace of values by row and column, both in the order in which they come first; and the rows and columns.

    Fields without a value stay empty and say nothing.
    """
    rows = list(dict.fromkeys(row for row, _ in by_place))
    columns = list(dict.fromkeys(column for _, column in by_place))
    fields = {place: field(value) for place, value in by_place.items()}
    grid = [[fields.get((row, column)) for column in columns] for row in rows]
    trace = {
        "type": "heatmap",
        "x": [style.escape(column) for column in columns],
        "y": [style.escape(row) for row in rows],
        "z": [[None if one is None else round(one.number, 2) for one in row] for row in grid],
        "text": [["" if one is None else one.text for one in row] for row in grid],
        "customdata": [[None if one is None else one.cell for one in row] for row in grid],
        "hovertext": [["" if one is None else one.hover for one in row] for row in grid],
        "hoverinfo": "text",
        "hoverongaps": False,
        "texttemplate": "%{text}",
        "colorscale": colours,
        "colorbar": {"thickness": 12, "title": {"text": bar, "side": "top"}},
        "xgap": 2,
        "ygap": 2,
    }
    return trace, rows, columns

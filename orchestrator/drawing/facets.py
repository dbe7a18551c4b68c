"""Which lines share a panel, and how the panels are arranged."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from orchestrator.results.index import Index
from orchestrator.results.line import Line
from orchestrator.results.view import FACETS, PageView

T = TypeVar("T")
#: Panels of one portion of a page, and of one row, at most.
MOST, WIDEST = 18, 6
#: Panels are arranged as a table if at least this share of its positions has lines.
FULL = 0.7


@dataclasses.dataclass(frozen=True, kw_only=True)
class Panel:
    """The lines of one panel; none where that combination was not run."""

    #: Two lines of its title.
    place: str
    attack: str
    lines: tuple[Line, ...]

    @property
    def name(self) -> str:
        """The complete title."""
        return f"{self.place} / {self.attack}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facets:
    """Panels row by row."""

    columns: int
    panels: tuple[Panel, ...]
    #: Number of this portion, and of all portions.
    portion: int
    portions: int
    #: Panels of all portions.
    total: int

    @property
    def turning(self) -> tuple[int, int, int, int]:
        """Number of this portion, number of portions, its panels and all panels."""
        return self.portion, self.portions, len(self.panels), self.total


def arranged(view: PageView, index: Index, lines: Sequence[Line]) -> Facets:
    """The panels of `lines`: the dimensions of `view.rows` go down, the others across."""
    members: dict[int, list[Line]] = {}
    # By panel, since a large store has tens of thousands of lines.
    for line, number in zip(lines, index.panel[[line.number for line in lines]].tolist(), strict=True):
        members.setdefault(number, []).append(line)
    dimensions = {number: index.labels.dimensions(panel_lines[0]) for number, panel_lines in members.items()}
    across = [name for name in FACETS if name not in view.rows] if view.rows else _across(list(dimensions.values()))
    down = [name for name in FACETS if name not in across]
    grid: dict[tuple[str, ...], dict[tuple[str, ...], list[Line]]] = {}
    columns: dict[tuple[str, ...], None] = {}
    for number, panel_lines in members.items():
        values = dimensions[number]
        column = tuple(values[name] for name in across)
        columns[column] = None
        grid.setdefault(tuple(values[name] for name in down), {}).setdefault(column, []).extend(panel_lines)
    panels = []
    for row, cells in grid.items():
        for column in columns:
            values = dict(zip([*down, *across], [*row, *column], strict=True))
            attack = f"{values['attack']}, {values['gradient']}"
            place = " / ".join(filter(None, (values[name] for name in ("store", "backbone", "dataset"))))
            panels.append(Panel(place=place, attack=attack, lines=tuple(cells.get(column, ()))))
    width, filled = len(columns), [panel for panel in panels if panel.lines]
    if width > WIDEST or len(filled) < FULL * len(panels):
        # Too wide, or too many empty panels: those with lines follow each other.
        panels, width = filled, min(width, WIDEST)
    size = max(1, MOST // max(1, width)) * max(1, width)
    number, portions, shown = portion(view.portion, panels, size)
    return Facets(columns=max(1, width), panels=tuple(shown), portion=number, portions=portions, total=len(panels))


def _across(dimensions: Sequence[dict[str, str]]) -> list[str]:
    """By default backbones go down and the rest across; where that is too wide, gradients go down as well."""
    varied = [name for name in FACETS if len({values[name] for values in dimensions}) > 1]
    first = next((name for name in ("backbone", "attack") if name in varied), "backbone")
    for down in ([first], [first, "gradient"], [first, "gradient", "dataset"]):
        across = [name for name in FACETS if name not in down]
        if len({tuple(values[name] for name in across) for values in dimensions}) <= WIDEST:
            return across
    return [name for name in FACETS if name != first]


def portion(number: int, items: Sequence[T], size: int) -> tuple[int, int, Sequence[T]]:
    """The number of the portion that is shown, at most the last; the number of portions; and its items."""
    portions = max(1, -(-len(items) // size))
    number = min(number, portions)
    return number, portions, items[(number - 1) * size : number * size]

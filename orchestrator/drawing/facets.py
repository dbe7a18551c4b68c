"""Which lines share a panel, and where the panels stand."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TypeVar

from orchestrator.results.index import Index
from orchestrator.results.line import Line
from orchestrator.results.view import FACETS, View

T = TypeVar("T")
#: Panels of one part of a page, and of one row.
MOST, WIDEST = 18, 6
#: Share of the places of a table of panels that must have been run for it to be one.
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
        """The whole title."""
        return f"{self.place} / {self.attack}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facets:
    """Panels row by row."""

    columns: int
    panels: tuple[Panel, ...]
    #: Which part this is, and how many there are.
    part: int
    parts: int
    #: Panels of all parts.
    total: int

    @property
    def turning(self) -> tuple[int, int, int, int]:
        """Which part it is, how many there are, its panels and all panels."""
        return self.part, self.parts, len(self.panels), self.total


def arranged(view: View, index: Index, lines: Sequence[Line]) -> Facets:
    """The panels of `lines`: the dimensions of `view.rows` go down, the others across."""
    members: dict[int, list[Line]] = {}
    # By panel, since a large store has tens of thousands of lines.
    for line, number in zip(lines, index.panel[[line.number for line in lines]].tolist(), strict=True):
        members.setdefault(number, []).append(line)
    dimensions = {number: index.labels.dimensions(found[0]) for number, found in members.items()}
    across = [name for name in FACETS if name not in view.rows] if view.rows else _across(list(dimensions.values()))
    down = [name for name in FACETS if name not in across]
    grid: dict[tuple[str, ...], dict[tuple[str, ...], list[Line]]] = {}
    columns: dict[tuple[str, ...], None] = {}
    for number, found in members.items():
        values = dimensions[number]
        column = tuple(values[name] for name in across)
        columns[column] = None
        grid.setdefault(tuple(values[name] for name in down), {}).setdefault(column, []).extend(found)
    panels = []
    for row, cells in grid.items():
        for column in columns:
            values = dict(zip([*down, *across], [*row, *column], strict=True))
            attack = f"{values['attack']}, {values['gradient']}"
            place = f"{values['backbone']} / {values['dataset']}"
            panels.append(Panel(place=place, attack=attack, lines=tuple(cells.get(column, ()))))
    width, filled = len(columns), [panel for panel in panels if panel.lines]
    if width > WIDEST or len(filled) < FULL * len(panels):
        # Too many to stand side by side, or too many that were not run: they follow each other without these.
        panels, width = filled, min(width, WIDEST)
    size = max(1, MOST // max(1, width)) * max(1, width)
    part, parts, shown = portion(view.part, panels, size)
    return Facets(columns=max(1, width), panels=tuple(shown), part=part, parts=parts, total=len(panels))


def _across(found: Sequence[dict[str, str]]) -> list[str]:
    """By default backbones go down and the rest across; where that is too wide, gradients go down as well."""
    varied = [name for name in FACETS if len({values[name] for values in found}) > 1]
    first = next((name for name in ("backbone", "attack") if name in varied), "backbone")
    for down in ([first], [first, "gradient"], [first, "gradient", "dataset"]):
        across = [name for name in FACETS if name not in down]
        if len({tuple(values[name] for name in across) for values in found}) <= WIDEST:
            return across
    return [name for name in FACETS if name != first]


def portion(part: int, things: Sequence[T], size: int) -> tuple[int, int, Sequence[T]]:
    """Which part is shown, the last one where there are fewer, how many there are, and its things."""
    parts = max(1, -(-len(things) // size))
    part = min(part, parts)
    return part, parts, things[(part - 1) * size : part * size]

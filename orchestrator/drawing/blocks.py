"""What a page says, without saying how it is drawn: the explorer and the report draw the same blocks."""

from __future__ import annotations

import csv
import dataclasses
import io
from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.drawing.panels import Spec
from orchestrator.drawing.strokes import Drawing

Value = str | float | int | None
#: How a number is written: a share as percent, a difference in percentage points, a plain number, or text.
Kind = Literal["text", "percent", "points", "number"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Column:
    """A column of a table."""

    key: str
    label: str
    kind: Kind = "text"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Table:
    """Rows of values. A row may have `cell`, the key of a cell whose page it leads to, and `state`, its look."""

    name: str
    title: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Value]]
    #: A sentence on how the table is to be read.
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as plotly writes it, what a reader who does not see it is told, and the table that says the same."""

    name: str
    title: str
    described: str
    figure: Spec
    table: Table
    #: The same numbers for a figure of a paper; None where there is no such figure.
    drawing: Drawing | None = None
    #: Whether the page shows the table under the figure; not where another block has it already.
    shows_table: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """Sentences. `tone` is "plain", "finding" for what the numbers say, "warning", or "todo" for what to run."""

    title: str
    sentences: Sequence[str]
    tone: Literal["plain", "finding", "warning", "todo"] = "plain"
    #: Commands to be typed, shown after the sentences.
    commands: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triple:
    """An adversarial image beside its clean one."""

    cell: str
    image: int
    caption: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """Adversarial images."""

    title: str
    triples: Sequence[Triple]
    #: By how much the difference is multiplied.
    gain: float
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """A way to another view; `search` is its address."""

    text: str
    search: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Links:
    """Ways to other views, under a short text."""

    title: str
    links: Sequence[Link]


State = Literal["", "best", "raised", "fine", "not run", "running", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Entry:
    """A cell of a matrix: its lines of text, how it is meant, and where it leads."""

    lines: Sequence[str]
    state: State = ""
    search: str = ""
    #: The evidence, shown on demand; the table below the matrix has it too.
    about: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """Rows by columns, as a paper prints a table, with the tidy table that says the same."""

    name: str
    title: str
    header: Sequence[str]
    #: The names at the left of each row, and its entries.
    rows: Sequence[tuple[Sequence[str], Sequence[Entry]]]
    note: str
    table: Table


@dataclasses.dataclass(frozen=True, kw_only=True)
class Facts:
    """Names with their values."""

    title: str
    facts: Sequence[tuple[str, str]]


Block = Table | Figure | Matrix | Facts | Words | Pictures | Links


@dataclasses.dataclass(frozen=True, kw_only=True)
class Page:
    """A title and its blocks."""

    title: str
    blocks: Sequence[Block]


def shown(value: Value, kind: Kind) -> str:
    """A value as people read it: "61.2 %", "+22.4", "15,000"; nothing for a missing one."""
    if value is None or value == "":
        return ""
    if isinstance(value, str) or kind == "text":
        return str(value)
    if kind == "percent":
        return f"{100 * value:.1f} %"
    return f"{100 * value:+.1f}" if kind == "points" else f"{value:,}" if isinstance(value, int) else f"{value:.6g}"


def as_csv(table: Table) -> str:
    """The table's rows with full precision, as CSV with its labels as header."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([column.label for column in table.columns])
    for row in table.rows:
        writer.writerow(["" if row.get(c.key) is None else row.get(c.key) for c in table.columns])
    return sink.getvalue()

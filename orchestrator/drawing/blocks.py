"""The content of a page, independent of how it is drawn: the explorer and the report draw the same blocks."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Literal

from orchestrator.drawing.figure_data import Drawing, csv_text
from orchestrator.drawing.panels import Spec

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
    """Rows of values. A row may have `cell`, the key of the cell that it links to, and `state`, its style."""

    name: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Value]]
    title: str = "The same numbers as a table"
    #: A sentence that explains the table.
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Figure:
    """A figure as plotly writes it, a description for screen readers, and a table of the same numbers."""

    name: str
    title: str
    described: str
    figure: Spec
    table: Table
    #: The same numbers for the figure of a paper; None where there is none.
    drawing: Drawing | None = None
    #: Whether the page shows the table under the figure; False where another block shows it.
    shows_table: bool = True


@dataclasses.dataclass(frozen=True, kw_only=True)
class Words:
    """Sentences. `tone` is "plain", "finding" for results in words, "warning", or "todo" for what to run."""

    title: str
    sentences: Sequence[str]
    tone: Literal["plain", "finding", "warning", "todo"] = "plain"
    #: Commands for the shell, shown after the sentences.
    commands: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Triple:
    """An adversarial image beside its clean one."""

    cell: str
    image: int
    caption: str
    #: The name of its store, where several are shown together.
    store: str = ""
    #: The same image against another model, shown below it.
    beside: Triple | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pictures:
    """Adversarial images."""

    title: str
    triples: Sequence[Triple]
    #: Factor by which the difference is multiplied.
    gain: float
    note: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Link:
    """A link to another view; `search` is its address."""

    text: str
    search: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Links:
    """Links to other views, after a short text."""

    title: str
    links: Sequence[Link]


State = Literal["", "best", "raised", "fine", "not run", "running", "failed"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatrixCell:
    """A cell of a matrix: its lines of text, its state, and the view that it links to."""

    lines: Sequence[str]
    state: State = ""
    search: str = ""
    #: The evidence, shown as a tooltip; the table below the matrix has it too.
    about: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix:
    """Rows by columns, as a paper prints a table, with a tidy table of the same numbers."""

    name: str
    title: str
    header: Sequence[str]
    #: The names at the left of each row, and its entries.
    rows: Sequence[tuple[Sequence[str], Sequence[MatrixCell]]]
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

    @property
    def tables(self) -> list[Table]:
        """Its tables, those of its figures and matrices among them, in their order."""
        own = [block.table if isinstance(block, (Figure, Matrix)) else block for block in self.blocks]
        return [block for block in own if isinstance(block, Table)]

    @property
    def warnings(self) -> list[str]:
        """The sentences of its warnings: what is missing from its numbers, or mixed in them."""
        words = [block for block in self.blocks if isinstance(block, Words) and block.tone == "warning"]
        return [sentence for block in words for sentence in block.sentences]


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
    header = [column.label for column in table.columns]
    # None is written as nothing.
    return csv_text([header, *([row.get(column.key) for column in table.columns] for row in table.rows)])

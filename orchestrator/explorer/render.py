"""Blocks as components of the interactive explorer."""

from __future__ import annotations

import dataclasses
from typing import Any
from urllib.parse import quote

from dash import dcc, html
from dash.development.base_component import Component

from orchestrator.drawing import style
from orchestrator.drawing.blocks import (
    Block,
    Facts,
    Figure,
    Links,
    Matrix,
    MatrixCell,
    Page,
    Pictures,
    Table,
    Triple,
    Words,
)
from orchestrator.drawing.panels import Spec, axes_of
from orchestrator.explorer.ag_grid import grid_of


@dataclasses.dataclass(frozen=True, kw_only=True)
class Look:
    """How a page is drawn, apart from its content."""

    #: While it is the same, figures keep their zoom and hidden lines when they are replaced.
    revision: str = ""
    #: Whether the tables under figures are open, and the address of the view.
    table: bool = False
    search: str = ""


def rendered(page: Page, look: Look) -> list[Component]:
    """A page's components."""
    blocks = [
        html.Div(_block(block, look), id={"type": "block", "at": position})
        for position, block in enumerate(page.blocks)
    ]
    return [html.H1(page.title, className="page-title"), *blocks]


def drawn(block: Figure, revision: str) -> Spec:
    """The figure as it is sent, with the ranges of its axes recorded, so that a zoom can be detected."""
    ranges = {name: list(axis["range"]) for name, axis in axes_of(block.figure).items() if "range" in axis}
    return {**block.figure, "layout": block.figure["layout"] | {"uirevision": revision, "meta": ranges}}


def _block(block: Block, look: Look) -> Component:
    if isinstance(block, Words):
        return _words(block)
    if isinstance(block, Figure):
        return _figure(block, look)
    if isinstance(block, Table):
        return _section(block.title, grid_of(block, look.search), block.note)
    if isinstance(block, Links):
        links = [dcc.Link(link.text, href=link.search, refresh=False, className="chip") for link in block.links]
        return html.Nav([html.Span(f"{block.title}: "), *links], className="links", **{"aria-label": block.title})
    if isinstance(block, Matrix):
        return _matrix(block, look)
    if isinstance(block, Facts):
        terms = [item for name, value in block.facts for item in (html.Dt(name), html.Dd(value))]
        return _section(block.title, html.Dl(terms))
    return _pictures(block)


def _section(title: str, content: Component, note: str = "") -> Component:
    contents = [html.H2(title), *([html.P(note, className="note")] if note else []), content]
    return html.Section(contents, className="card")


def _words(block: Words) -> Component:
    sentences = [html.P(text) for text in block.sentences]
    commands = [html.Pre(html.Code(command)) for command in block.commands]
    role: dict[str, Any] = {"role": "status"} if block.tone == "warning" else {}
    return html.Section([html.H2(block.title), *sentences, *commands], className=f"card {block.tone}", **role)


def _figure(block: Figure, look: Look) -> Component:
    figure = drawn(block, look.revision)
    graph = dcc.Graph(
        id={"type": "graph", "name": block.name},
        figure=figure,
        config=style.GRAPH_CONFIG,
        responsive=True,
        style={"height": f"{figure['layout']['height']}px", "minWidth": f"{block.figure['layout']['meta']['width']}px"},
    )
    picture = html.Div(graph, className="graph", role="img", **{"aria-label": block.described})
    twin = [_twin(block.table, look)] if block.shows_table else []
    contents = [html.H2(block.title), html.Div(picture, className="scroll"), *twin]
    return html.Section(contents, className="card")


def _twin(table: Table, look: Look) -> Component:
    """The table under a figure. While it is closed it has no rows, which would be half of the page."""
    summary = html.Summary(table.title, id={"type": "twin", "at": table.name})
    grid = [grid_of(table, look.search)] if look.table else []
    return html.Details([summary, *grid], className="twin", open=look.table)


def _matrix(block: Matrix, look: Look) -> Component:
    names = len(block.header) - len(block.rows[0][1])
    header = [
        html.Th(text, scope="col", className="name" if column < names else "check")
        for column, text in enumerate(block.header)
    ]
    rows = [
        html.Tr([*(html.Th(name, scope="row") for name in left), *(_entry(entry) for entry in entries)])
        for left, entries in block.rows
    ]
    table = html.Table([html.Thead(html.Tr(header)), html.Tbody(rows)], className=f"matrix {block.name}")
    # An element that scrolls must be reachable by keyboard as well.
    scroll = html.Div(table, className="scroll", tabIndex="0", role="region", **{"aria-label": block.title})
    contents = [html.H2(block.title), html.P(block.note, className="note"), scroll, _twin(block.table, look)]
    return html.Section(contents, className="card")


def _entry(entry: MatrixCell) -> Component:
    lines = [html.Span(line) for line in entry.lines]
    content = dcc.Link(lines, href=entry.search, refresh=False) if entry.search else html.Div(lines)
    return html.Td(content, title=entry.about or None, className=f"entry {entry.state.replace(' ', '-')}")


def _pictures(block: Pictures) -> Component:
    note = [html.P(block.note, className="note")] if block.note else []
    header = html.P(f"clean, difference × {block.gain:g} around grey, adversarial", className="note")
    shown = [_triple(triple, block.gain) for triple in block.triples]
    return html.Section([html.H2(block.title), *note, header, html.Div(shown, className="triples")], className="card")


def _triple(triple: Triple, gain: float) -> Component:
    kinds = (
        ("clean", "clean image"),
        ("difference", f"difference times {gain:g}"),
        ("adversarial", "adversarial image"),
    )
    parts: list[Component] = []
    for one in (triple, triple.beside):
        if one is not None:
            images = [
                html.Img(src=image_path(kind, one), alt=f"{words}, image {one.image}", width=96, height=96)
                for kind, words in kinds
            ]
            parts += [html.Div(images, className="triple"), html.Figcaption(one.caption)]
    return html.Figure(parts)


def image_path(kind: str, triple: Triple) -> str:
    """Where an example's image is served: by the key of its cell and its number, never by a path."""
    store = f"?store={quote(triple.store, safe='')}" if triple.store else ""
    return f"/image/{kind}/{quote(triple.cell, safe='')}/{triple.image}.png{store}"

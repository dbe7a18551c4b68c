"""Blocks as components of the interactive explorer."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import dash_ag_grid as dag
import dash_mantine_components as dmc
from dash import dcc, html
from dash.development.base_component import Component

from orchestrator.explorer import style
from orchestrator.explorer.blocks import Block, Column, Figure, Links, Page, Pictures, Table, Triple, Words

#: Rows above which a table gets a height of its own and scrolls.
TALL = 14
_FORMATS = {
    "percent": "params.value == null ? '' : d3.format('.1f')(100 * params.value) + ' %'",
    "points": "params.value == null ? '' : d3.format('+.1f')(100 * params.value)",
    "number": "params.value == null ? '' : d3.format(',')(params.value)",
}
#: Words for states beside their colour: no information by colour alone.
_STATES = {state: {"fontStyle": "italic"} for state in ("not run", "running", "failed")}


def rendered(page: Page, revision: str) -> list[Component]:
    """A page's components. While `revision` stays, figures keep their zoom and hidden lines when they are replaced."""
    return [html.H1(page.title, className="page-title"), *(_block(block, revision) for block in page.blocks)]


def _block(block: Block, revision: str) -> Component:
    if isinstance(block, Words):
        return _words(block)
    if isinstance(block, Figure):
        return _figure(block, revision)
    if isinstance(block, Table):
        return _section(block.title, _table(block), block.note)
    if isinstance(block, Links):
        links = [dcc.Link(link.text, href=link.search, refresh=False, className="chip") for link in block.links]
        return html.Nav([html.Span(f"{block.title}: "), *links], className="links", **{"aria-label": block.title})
    return _pictures(block)


def _section(title: str, content: Component, note: str = "") -> Component:
    parts = [html.H2(title), *([html.P(note, className="note")] if note else []), content]
    return html.Section(parts, className="card")


def _words(block: Words) -> Component:
    sentences = [html.P(text) for text in block.sentences]
    commands = [html.Pre(html.Code(command)) for command in block.commands]
    role: dict[str, Any] = {"role": "status"} if block.tone == "warning" else {}
    return html.Section([html.H2(block.title), *sentences, *commands], className=f"card {block.tone}", **role)


def _figure(block: Figure, revision: str) -> Component:
    figure = block.figure.update_layout(uirevision=revision, title_text=None)
    graph = dcc.Graph(
        id={"type": "graph", "name": block.name},
        figure=figure,
        config=style.GRAPH_CONFIG,
        responsive=True,
        style={"height": f"{figure.layout.height}px", "minWidth": "640px"},
    )
    picture = html.Div(graph, className="graph", role="img", **{"aria-label": block.described})
    rows = f"{block.table.title} ({style.counted(len(block.table.rows), 'row')})"
    below = html.Details([html.Summary(rows), _table(block.table)], className="twin")
    return html.Section([html.H2(block.title), html.Div(picture, className="scroll"), below], className="card")


def _table(table: Table) -> Component:
    rows = [dict(row) for row in table.rows]
    grid = dag.AgGrid(
        id={"type": "grid", "name": table.name},
        columnDefs=[_column(column) for column in table.columns],
        rowData=rows,
        columnSize="autoSize",
        defaultColDef={"sortable": True, "filter": True, "resizable": True, "minWidth": 80},
        dashGridOptions={
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
            "domLayout": "normal" if len(rows) > TALL else "autoHeight",
            "enableCellTextSelection": True,
            "ensureDomOrder": True,
            "tooltipShowDelay": 200,
            "autoSizeStrategy": {"type": "fitCellContents"},
        },
        csvExportParams={"fileName": f"{table.name}.csv"},
        style={"height": "440px"} if len(rows) > TALL else {"height": None},
        className="ag-theme-quartz grid",
    )
    button = dmc.Button(
        "CSV of the rows shown",
        id={"type": "csv", "name": table.name},
        size="compact-xs",
        variant="default",
    )
    return html.Div([grid, button])


def _column(column: Column) -> dict[str, Any]:
    definition: dict[str, Any] = {"field": column.key, "headerName": column.label}
    if column.kind in _FORMATS:
        definition |= {"valueFormatter": {"function": _FORMATS[column.kind]}, "type": "rightAligned"}
        definition |= {"filter": "agNumberColumnFilter"}
    if column.about:
        definition |= {"tooltipField": column.about, "wrapText": True, "autoHeight": True}
    conditions = [
        {"condition": f"params.value && String(params.value).startsWith('{state}')", "style": look}
        for state, look in _STATES.items()
    ]
    return definition | {"cellStyle": {"styleConditions": conditions}} if column.kind == "text" else definition


def _pictures(block: Pictures) -> Component:
    note = [html.P(block.note, className="note")] if block.note else []
    header = html.P(f"clean, difference × {block.gain:g} around grey, adversarial", className="note")
    shown = [_triple(triple, block.gain) for triple in block.triples]
    return html.Section([html.H2(block.title), *note, header, html.Div(shown, className="triples")], className="card")


def _triple(triple: Triple, gain: float) -> Component:
    kinds = (("clean", "clean image"), ("difference", f"difference times {gain:g}"), ("adversarial", "adversarial image"))
    images = [
        html.Img(src=image_path(kind, triple), alt=f"{words}, image {triple.image}", width=96, height=96)
        for kind, words in kinds
    ]
    return html.Figure([html.Div(images, className="triple"), html.Figcaption(triple.caption)])


def image_path(kind: str, triple: Triple) -> str:
    """Where an example's image is served: by the key of its cell and its number, never by a path."""
    return f"/image/{kind}/{quote(triple.cell, safe='')}/{triple.image}.png"

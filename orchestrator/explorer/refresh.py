"""Draw a page, and update it with new results: figures stay in place, with their zoom."""

from __future__ import annotations

import dataclasses
import hashlib
from typing import Any

from dash import ALL, Dash, Input, Output, State, ctx, no_update
from dash.development.base_component import Component

from orchestrator import pages
from orchestrator.drawing.blocks import Figure, Page
from orchestrator.drawing.panels import Spec, axes_of
from orchestrator.explorer.render import Look, drawn, rendered
from orchestrator.pages.context import context_of
from orchestrator.pages.notes import noting
from orchestrator.results.live_stores import Results
from orchestrator.results.view import PageView, format_view

#: What the user changed in the graph: ranges that differ from those it was sent with, and hidden rules.
_HELD = """version => {
    const held = {version, ranges: {}, hidden: []}, graph = document.querySelector('.js-plotly-plot');
    if (!graph || !graph._fullLayout) return held;
    for (const [name, sent] of Object.entries(graph.layout.meta || {})) {
        const now = (graph._fullLayout[name] || {}).range;
        if (now && (now[0] !== sent[0] || now[1] !== sent[1])) held.ranges[name] = [now[0], now[1]];
    }
    held.hidden = [...new Set(graph.data.filter(t => t.visible === 'legendonly').map(t => t.legendgroup))];
    return held;
}"""


#: The name of the page in the browser's tab and history, and which link of the navigation leads to it.
_NAMED = """() => {
    const name = (document.querySelector('#results h1') || {}).innerText || '';
    document.title = name ? name + ' · signsym explorer' : 'signsym explorer';
    for (const link of document.querySelectorAll('nav.pages a')) {
        if (link.classList.contains('current')) link.setAttribute('aria-current', 'page');
        else link.removeAttribute('aria-current');
    }
    return name;
}"""


def add(app: Dash, data: Results) -> None:
    """Add the two callbacks: an address draws a page, new results update its content.

    With new results a graph gets another figure, with the zoom and the hidden rules that the browser says it has:
    plotly's `uirevision` alone forgets a zoom by the mouse. Other blocks are replaced. Where blocks came or went, the
    page is redrawn.
    """

    @app.callback(  # type: ignore[untyped-decorator]
        Output("results", "children"),
        Output("shape", "data"),
        Input("url", "search"),
        Input("again", "data"),
    )
    def show(search: str | None, _redraw: int | None) -> list[Any]:
        context = context_of(data, search)
        page = noting(pages.build(context), context)
        return [rendered(page, _look(context.view)), _shape(page)]

    app.clientside_callback(_NAMED, Output("results", "aria-label"), Input("results", "children"))
    app.clientside_callback(_HELD, Output("kept", "data"), Input("version", "data"), prevent_initial_call=True)

    @app.callback(  # type: ignore[untyped-decorator]
        Output({"type": "block", "at": ALL}, "children"),
        Output({"type": "graph", "name": ALL}, "figure"),
        Output({"type": "grid", "name": ALL}, "rowData"),
        Output("again", "data"),
        Input("kept", "data"),
        State("url", "search"),
        State("shape", "data"),
        prevent_initial_call=True,
    )
    def renew(held: dict[str, Any], search: str | None, shape: list[str] | None) -> list[Any]:
        blocks, graphs, grids = ([output["id"] for output in outputs] for outputs in ctx.outputs_list[:3])
        context = context_of(data, search)
        page = noting(pages.build(context), context)
        if _shape(page) != shape or len(blocks) != len(page.blocks):
            kept = [[no_update] * len(ids) for ids in (blocks, graphs, grids)]
            return [*kept, held["version"]]
        look = _look(context.view)
        figures = {block.name: block for block in page.blocks if isinstance(block, Figure)}
        tables = {block.table.name: [dict(row) for row in block.table.rows] for block in figures.values()}
        graphed = {name: looked_at(drawn(block, look.revision), held) for name, block in figures.items()}
        return [
            [_content(page, id["at"], look) for id in blocks],
            [graphed.get(id["name"], no_update) for id in graphs],
            [tables.get(id["name"], no_update) for id in grids],
            no_update,
        ]


def looked_at(figure: Spec, held: dict[str, Any]) -> Spec:
    """The figure with ranges and hidden rules as `_HELD` gave them; values that do not fit the figure are ignored."""
    layout = dict(figure["layout"])
    for name, ends in held.get("ranges", {}).items():
        if name in axes_of(figure) and isinstance(ends, list) and len(ends) == 2:
            layout[name] = layout[name] | {"range": [float(end) for end in ends]}
    hidden = set(held.get("hidden", ()))
    data = [t | ({"visible": "legendonly"} if t.get("legendgroup") in hidden else {}) for t in figure["data"]]
    return {"data": data, "layout": layout}


def _content(page: Page, position: int, look: Look) -> Component:
    block = page.blocks[position]
    return no_update if isinstance(block, Figure) else rendered(Page(title="", blocks=[block]), look)[1].children


def _shape(page: Page) -> list[str]:
    return [f"{type(block).__name__} {getattr(block, 'name', '')}" for block in page.blocks]


def _look(view: PageView) -> Look:
    """How the view is drawn. Zoom and hidden lines belong to the page and its filters, but not to the table below."""
    kept = dataclasses.replace(view, live=False, table=False)
    revision = hashlib.sha256(format_view(kept).encode()).hexdigest()[:16]
    return Look(revision=revision, table=view.table, search=format_view(view))

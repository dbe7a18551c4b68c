"""The interactive explorer: a Dash application whose only state is the address of its page."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from typing import Any

from dash import ALL, MATCH, Dash, Input, Output, State, ctx, dcc, html, no_update
from dash.development.base_component import Component
from plotly.io import json as plotly_json

from orchestrator.drawing import style
from orchestrator.explorer import ASSETS, refresh, routes
from orchestrator.explorer.controls import CONTROLS, bar, changed, navigation, options, shown, value_of
from orchestrator.explorer.mantine import dmc
from orchestrator.pages.context import context_of
from orchestrator.results.live_stores import Results
from orchestrator.results.view import PAGES, PageView, format_view, parse_view

#: Milliseconds between two checks of the store.
PERIOD = 5_000


def make_app(data: Results) -> Dash:
    """The application over a store. It serves all files and contacts no other host."""
    # With orjson, plotly looks at every number of a figure in Python first: seven times slower.
    plotly_json.config.default_engine = "json"
    app = Dash(
        "signsym",
        title="signsym explorer",
        update_title="",
        assets_folder=str(ASSETS),
        serve_locally=True,
        compress=False,
        suppress_callback_exceptions=True,
    )
    app.index_string = app.index_string.replace("<html>", '<html lang="en">')
    # Made for each visitor, whose page is as new as the results are then.
    app.layout = functools.partial(_layout, data)
    routes.add(app.server, data)
    _callbacks(app, data)
    refresh.add(app, data)
    return app


def _layout(data: Results) -> Component:
    header = html.Header(
        [
            html.A("Skip to the results", href="#results", className="skip"),
            html.Div(
                [html.Strong("signsym"), html.Span(data.uri, className="where")], className="brand", title=data.uri
            ),
            navigation(),
            html.Div(id="strip", role="status", **{"aria-live": "polite"}),
            dmc.Button(_NEW_RESULTS, id="refresh", size="compact-sm", style={"display": "none"}),
            dmc.Switch(id="filter-live", label="Live", size="xs", checked=False),
            dmc.ColorSchemeToggle(
                lightIcon=html.Span("☀", **{"aria-hidden": "true"}),
                darkIcon=html.Span("☾", **{"aria-hidden": "true"}),
                id="scheme",
                size="lg",
                variant="default",
                **{"aria-label": "Light or dark"},
            ),
        ],
        className="top",
    )
    components = [
        dcc.Location(id="url", refresh=False),
        dcc.Interval(id="tick", interval=PERIOD),
        dcc.Store(id="shape"),
        dcc.Store(id="again"),
        dcc.Store(id="kept"),
        dcc.Store(id="version", data=_version(data)),
        header,
        bar(),
        html.Main(id="results", tabIndex="-1"),
    ]
    return dmc.MantineProvider(components, defaultColorScheme="auto", theme={"fontFamily": style.FONT})


def _callbacks(app: Dash, data: Results) -> None:
    live = [Input("filter-live", "checked")]
    held = [Input(control.id, control.holds) for control in CONTROLS]
    offered = [control for control in CONTROLS if control.offers]

    @app.callback(  # type: ignore[untyped-decorator]
        *(Output(control.id, control.holds) for control in CONTROLS),
        *(Output(control.id, "data") for control in offered),
        *(Output(f"{control.id}-box", "style") for control in CONTROLS),
        *(Output(f"page-{name}", "href") for name in PAGES),
        *(Output(f"page-{name}", "className") for name in PAGES),
        Output("filter-live", "checked"),
        Input("url", "search"),
        Input("version", "data"),
        *(State(control.id, control.holds) for control in CONTROLS),
    )
    def show_controls(search: str | None, _version: list[int], *now: Any) -> list[Any]:
        context = context_of(data, search)
        view, index = context.view, context.snapshot.index
        epsilons = list(context.epsilons())
        values = [value_of(control, view) for control in CONTROLS]
        return [
            *(no_update if value == before else value for value, before in zip(values, now, strict=True)),
            *(options(control, view, index, data, epsilons) for control in offered),
            *({} if shown(control, view, data.names) else {"display": "none"} for control in CONTROLS),
            *(format_view(view.turned(name)) for name in PAGES),
            *("page current" if view.page == name else "page" for name in PAGES),
            view.live,
        ]

    @app.callback(  # type: ignore[untyped-decorator]
        Output("url", "search"),
        *held,
        *live,
        Input({"type": "graph", "name": ALL}, "clickData"),
        Input({"type": "grid", "name": ALL}, "selectedRows"),
        Input({"type": "twin", "at": ALL}, "n_clicks"),
        State("url", "search"),
        prevent_initial_call=True,
    )
    def go(*values: Any) -> Any:
        *controls, is_live, _clicks, _selected, _opened, search = values
        view = context_of(data, search).view
        trigger = ctx.triggered_id
        if isinstance(trigger, dict) and trigger["type"] == "twin":
            return (
                format_view(dataclasses.replace(view, table=not view.table)) if ctx.triggered[0]["value"] else no_update
            )
        if isinstance(trigger, dict):
            cell = _clicked(ctx.triggered)
            return format_view(view.turned("cell", cell=cell)) if cell else no_update
        new = changed(dataclasses.replace(view, live=bool(is_live)), controls)
        return no_update if new == view else format_view(new)

    @app.callback(  # type: ignore[untyped-decorator]
        Output("strip", "children"),
        Output("version", "data"),
        Output("refresh", "style"),
        Output("refresh", "children"),
        Input("tick", "n_intervals"),
        Input("refresh", "n_clicks"),
        State("version", "data"),
        State("url", "search"),
    )
    def look(_ticks: int | None, _clicks: int | None, version: list[int], search: str | None) -> list[Any]:
        data.refresh()
        newest = _version(data)
        show = ctx.triggered_id == "refresh" or parse_view(search)[0].live
        offered = {} if newest != version and not show else {"display": "none"}
        words = _NEW_RESULTS if newest[0] != version[0] else _NEW_NOTES
        return [_strip(data), newest if newest != version and show else no_update, offered, words]

    @app.callback(  # type: ignore[untyped-decorator]
        Output({"type": "grid", "name": MATCH}, "exportDataAsCsv"),
        Input({"type": "csv", "name": MATCH}, "n_clicks"),
        prevent_initial_call=True,
    )
    def save(clicks: int | None) -> bool:
        return bool(clicks)


_NEW_RESULTS, _NEW_NOTES = "New results: show them", "New notes: show them"


def _version(data: Results) -> list[int]:
    """What changes with results, and what changes with notes."""
    notes = [(store, note.id) for store, note in data.notes]
    return [data.snapshot.version, zlib.crc32(repr(notes).encode())]


def _clicked(triggered: list[dict[str, Any]]) -> str:
    """The cell of a marker or row that was clicked; "" where there is none."""
    value = triggered[0]["value"] if triggered else None
    if isinstance(value, dict):
        cell = value.get("points", [{}])[0].get("customdata")
        return str(cell) if isinstance(cell, str) else ""
    if isinstance(value, list) and value:
        return str(value[0].get("cell") or "")
    return ""


def _strip(data: Results) -> list[Component]:
    """The progress of the store, in one line."""
    status, index = data.status, data.snapshot.index
    done = data.done
    phrases = [f"{done:,} of {len(status.cells):,} cells done" if status.cells else f"{index.results:,} cells done"]
    if status.cells and (more := index.results - done):
        phrases.append(f"{more:,} more that no grid plans")
    jobs = [style.counted(status.trials, "trial") + " running"] if status.trials else []
    jobs += [style.counted(status.failures, "job") + " failed"] if status.failures else []
    rest = [] if status.planned else ["planning the stored grids …"]
    rest += [f"last result {index.last_write}"] if index.last_write else []
    link = dcc.Link(", ".join(jobs), href=format_view(PageView(page="runs")), refresh=False)
    components = [html.Span(" · ".join(phrases)), *([link] if jobs else []), *map(html.Span, rest)]
    joined = [item for component in components for item in (" · ", component)][1:]
    # In a narrow window the end of the line is cut, which is the time of the last result.
    return [html.Span(joined, title=" · ".join([*phrases, *jobs, *rest]))]

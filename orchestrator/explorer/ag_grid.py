"""Tables drawn by AG Grid: sorted and filtered in the browser, and saved as shown."""

from __future__ import annotations

from typing import Any

import dash_ag_grid as dag
from dash import html
from dash.development.base_component import Component

from orchestrator.drawing.blocks import Column, Table
from orchestrator.explorer.mantine import dmc

#: A table of more rows has a fixed height and scrolls.
TALL = 14
_FORMATS = {
    "percent": "params.value == null ? '' : d3.format('.1f')(100 * params.value) + ' %'",
    "points": "params.value == null ? '' : d3.format('+.1f')(100 * params.value)",
    "number": "params.value == null ? '' : d3.format(',')(params.value)",
}
#: States are italic as well as coloured: no information by colour alone.
_STATES = {state: {"fontStyle": "italic"} for state in ("not run", "running", "failed")}


def grid_of(table: Table, search: str) -> Component:
    """The table of a view, whose address is `search`, with the rows shown and all rows as CSV."""
    rows = [dict(row) for row in table.rows]
    grid = dag.AgGrid(
        id={"type": "grid", "name": table.name},
        columnDefs=[_column(column) for column in _ordered(table)],
        rowData=rows,
        columnSize="autoSize",
        defaultColDef={"sortable": True, "filter": True, "resizable": True, "minWidth": 70},
        dashGridOptions={
            "rowSelection": {"mode": "singleRow", "checkboxes": False, "enableClickSelection": True},
            "domLayout": "normal" if len(rows) > TALL else "autoHeight",
            "ensureDomOrder": True,
        },
        csvExportParams={"fileName": f"{table.name}.csv"},
        style={"height": "440px"} if len(rows) > TALL else {"height": None},
        className="ag-theme-quartz grid",
    )
    button = dmc.Button(
        "CSV of the rows shown",
        id={"type": "csv", "name": table.name},
        **{"aria-label": f"CSV of the rows shown of: {table.title}"},
        size="compact-xs",
        variant="default",
    )
    full_csv = html.A(
        "CSV of all rows, full precision",
        href=f"/table/{table.name}.csv{search}",
        download=f"{table.name}.csv",
        className="chip",
        **{"aria-label": f"CSV of all rows with full precision of: {table.title}"},
    )
    return html.Div(
        [grid, html.Div([button, full_csv], className="files")], role="group", **{"aria-label": table.title}
    )


def _ordered(table: Table) -> list[Column]:
    """The columns, constant ones last, so that differences are visible without scrolling."""
    same = {c.key for c in table.columns if len({row.get(c.key) for row in table.rows}) <= 1}
    return sorted(table.columns, key=lambda column: len(table.rows) > 1 and column.key in same)


def _column(column: Column) -> dict[str, Any]:
    definition: dict[str, Any] = {"field": column.key, "headerName": column.label}
    if column.kind in _FORMATS:
        definition |= {"valueFormatter": {"function": _FORMATS[column.kind]}, "type": "rightAligned"}
        definition |= {"filter": "agNumberColumnFilter"}
    conditions = [
        {"condition": f"params.value && String(params.value).startsWith('{state}')", "style": look}
        for state, look in _STATES.items()
    ]
    return definition | {"cellStyle": {"styleConditions": conditions}} if column.kind == "text" else definition

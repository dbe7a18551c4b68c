"""What the explorer serves beside its page: images of examples, complete tables, and security headers."""

from __future__ import annotations

import dataclasses
import re
import threading
import time

from flask import Flask, Response, abort, request

from orchestrator import pages
from orchestrator.drawing.blocks import Table, Value, as_csv
from orchestrator.pages.context import context_of
from orchestrator.results.examples import picture
from orchestrator.results.live_stores import Results

#: Names of this machine that a browser on it uses. A page of another host whose name resolves to this machine (DNS
#: rebinding) sends that name and is refused.
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}


#: What a spreadsheet takes for a formula, or drops before it looks for one.
_FORMULA = re.compile(r"[=+\-@\x00-\x1f\x7f]")


def add(server: Flask, data: Results) -> None:
    """Add the routes to the application's server.

    /image/KIND/CELL/NUMBER.png?store=NAME: an example's image, see `picture`; of one of several stores.
    /table/NAME.csv?VIEW: the rows of one table of the page that the address VIEW stands for, with full precision.
    """

    @server.before_request
    def _known_host() -> None:
        data.answering.add(threading.get_ident())
        if request.host.rpartition(":")[0] not in _HOSTS and request.host not in _HOSTS:
            abort(403, "The explorer answers only this machine's own names.")

    @server.teardown_request
    def _answered(_error: BaseException | None) -> None:
        data.last_request = time.monotonic()
        data.answering.discard(threading.get_ident())

    @server.after_request
    def _closed(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = (
            "default-src 'self'; img-src 'self' data: blob:; style-src 'self' 'unsafe-inline'; "
            "script-src 'self' 'unsafe-inline' 'unsafe-eval'; connect-src 'self'; frame-ancestors 'none'"
        )
        response.headers["X-Content-Type-Options"] = "nosniff"
        response.headers["Referrer-Policy"] = "no-referrer"
        return response

    @server.get("/image/<kind>/<cell>/<int:image>.png")
    def _image(kind: str, cell: str, image: int) -> Response:
        image_bytes = picture(data.examples(cell, request.args.get("store", "")), image, kind)
        if image_bytes is None:
            abort(404)
        return Response(image_bytes, mimetype="image/png", headers={"Cache-Control": "private, max-age=3600"})

    @server.get("/table/<name>.csv")
    def _table(name: str) -> Response:
        if re.fullmatch(r"[a-z-]+", name) is None:
            abort(404)
        search = request.query_string.decode("utf-8", "replace")
        page = pages.build(context_of(data, f"?{search}"))
        table = next((table for table in page.tables if table.name == name), None)
        if table is None:
            abort(404)
        headers = {"Content-Disposition": f'attachment; filename="{name}.csv"', "Cache-Control": "no-store"}
        return Response(as_csv(_defused(table)), content_type="text/csv; charset=utf-8", headers=headers)


def _defused(table: Table) -> Table:
    """The table with an apostrophe before each text that a spreadsheet would compute; numbers stay as they are."""

    def plain(value: Value) -> Value:
        if not isinstance(value, str):
            return value
        # A carriage return would stand unquoted, and end its row.
        return "'" * bool(_FORMULA.match(value)) + value.replace("\r", " ")

    return dataclasses.replace(table, rows=[{key: plain(row[key]) for key in row} for row in table.rows])

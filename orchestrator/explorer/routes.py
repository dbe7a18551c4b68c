"""What the explorer serves beside its page: images of examples, tables in full, and headers that keep doors closed."""

from __future__ import annotations

from pathlib import Path

from flask import Flask, Response, abort, request

from orchestrator.explorer.data import Data
from orchestrator.explorer.examples import picture

ASSETS = Path(__file__).with_name("assets")
#: Names that a browser on this machine calls the explorer by. A page of another host that has its name resolve to
#: this machine sends its own name, and gets nothing.
_HOSTS = {"127.0.0.1", "localhost", "[::1]"}


def add(server: Flask, data: Data) -> None:
    """Add the routes to the application's server."""

    @server.before_request
    def _known_host() -> None:
        if request.host.rpartition(":")[0] not in _HOSTS and request.host not in _HOSTS:
            abort(403, "The explorer answers only this machine's own names.")

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
        found = picture(data.example(cell, image), kind)
        if found is None:
            abort(404)
        return Response(found, mimetype="image/png", headers={"Cache-Control": "private, max-age=3600"})

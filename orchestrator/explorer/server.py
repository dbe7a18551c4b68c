"""Serving the explorer on this machine alone."""

from __future__ import annotations

import logging
import time

from rich.console import Console
from werkzeug.serving import make_server

from orchestrator.explorer.app import make_app
from orchestrator.explorer.data import Data

HOST = "127.0.0.1"


def explore(storage: str, port: int, console: Console) -> None:
    """Serve the explorer of a store on 127.0.0.1 until Ctrl-C. Raises OSError where the port is taken."""
    started = time.monotonic()
    data = Data(storage)
    app = make_app(data)
    # Each request of a page that looks at its store every few seconds is no news.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    try:
        server = make_server(HOST, port, app.server, threaded=True)
    except (SystemExit, OSError):
        raise OSError(f"port {port} of {HOST} is taken; choose another: --port {port + 1}") from None
    read = f"{len(data.snapshot.index):,} results read in {time.monotonic() - started:.1f} s"
    console.print(f"{data.store.uri}: {read}", highlight=False)
    console.print(f"explorer: http://{HOST}:{port}/  (this machine only; Ctrl-C ends it)", highlight=False)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("\nended", highlight=False)
    finally:
        server.server_close()

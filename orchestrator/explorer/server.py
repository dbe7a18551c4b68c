"""Serving the explorer on this machine alone."""

from __future__ import annotations

import contextlib
import errno
import gc
import logging
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.store.apart import apart
from orchestrator.store.filerows import ReadFiles
from orchestrator.store.store import Store, open_store

if TYPE_CHECKING:
    from orchestrator.results.live_stores import Results

HOST = "127.0.0.1"
#: Files of results from which on another process reads them, which takes 0.4 s to start.
MANY = 2_000


def explore(storages: Sequence[str], port: int, console: Console) -> None:
    """Serve the explorer of one or several stores on 127.0.0.1 until Ctrl-C. Raises OSError where the port is taken."""
    started = time.monotonic()
    # The port first, so that a taken port is reported before the store is read.
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except (OSError, OverflowError) as error:
        reason = "is taken" if isinstance(error, OSError) and error.errno == errno.EADDRINUSE else f"is no use: {error}"
        raise OSError(
            f"port {port} of {HOST} {reason}; choose another: --port {port + 1 if port < 65535 else 8050}"
        ) from None
    with contextlib.ExitStack() as stack, console.status(f"reading {', '.join(storages)} ..."):
        # What is imported and read here stays: a search for garbage among it is a fifth of this time and of a page's.
        gc.disable()
        stack.callback(gc.enable)
        stores = [open_store(storage) for storage in storages]
        # The stores are read while the libraries of the page are imported, which takes as long; one of many files in
        # another process, since Python opens files and imports modules with one processor.
        pool = stack.enter_context(ThreadPoolExecutor(2))
        results = [
            stack.enter_context(apart(_read_apart, store.uri))
            if _is_large(store)
            else pool.submit(_read, store.uri).result
            for store in stores
        ]
        reading = pool.submit(_opened, storages, results)
        from werkzeug.serving import make_server

        from orchestrator.explorer.app import make_app
        from orchestrator.explorer.precompute import follow

        data = reading.result()
        app = make_app(data)
        gc.freeze()
    # Pages check their store every few seconds: their requests are not logged.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    listening.listen(128)
    server = make_server(HOST, port, app.server, threaded=True, fd=listening.fileno())
    # With port 0 the system chooses a free one.
    port = listening.getsockname()[1]
    read = f"{len(data.snapshot.index):,} results read in {time.monotonic() - started:.1f} s"
    console.print(f"{data.uri}: {read}", highlight=False)
    console.print(f"explorer: http://{HOST}:{port}/  (this machine only; Ctrl-C ends it)", highlight=False)
    threading.Thread(target=follow, args=[data], name="follow", daemon=True).start()
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        console.print("\nended", highlight=False)
    finally:
        server.server_close()
        listening.close()


def _is_large(store: Store) -> bool:
    return store.folder is not None and len(store.names("results", ".parquet")) >= MANY


def _read(storage: str) -> ReadFiles:
    from orchestrator.results.result_files import read_results

    return read_results(storage)


def _read_apart(storage: str) -> ReadFiles:
    """The results of a store in one table, which goes to another process in a tenth of the time that many take."""
    return _read(storage).in_one()


def _opened(storages: Sequence[str], results: Sequence[Callable[[], ReadFiles]]) -> Results:
    """The data of the stores, their first page computed already."""
    from orchestrator.results.live_stores import opened

    data = opened(storages, at_once=True, results=results)
    # By now the other thread has imported them: two that import take turns, one that reads files mostly does not.
    from orchestrator import pages
    from orchestrator.pages.context import context_of

    pages.build(context_of(data, ""))
    return data

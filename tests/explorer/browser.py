"""A real browser over a store, and which requests its pages make."""

from __future__ import annotations

import contextlib
import os
import shutil
import threading

import pytest
from werkzeug.serving import make_server

from orchestrator.explorer.app import make_app
from orchestrator.results.live_store import LiveStore

#: Where Debian puts it; SIGNSYM_BROWSER names another.
CHROMIUM = os.environ.get("SIGNSYM_BROWSER") or shutil.which("chromium") or shutil.which("chromium-browser")
WAIT = 60_000


def browser_or_skip():
    """The browser's path. Without one the tests are skipped, but on CI that is a failure."""
    if CHROMIUM is None:
        reason = "no chromium; `apt-get install chromium`, or name one by SIGNSYM_BROWSER"
        pytest.fail(reason) if os.environ.get("CI") else pytest.skip(reason)
    return CHROMIUM


@contextlib.contextmanager
def served(folder):
    """The explorer of a store at a free port: its address, and its data."""
    data = LiveStore(str(folder))
    server = make_server("127.0.0.1", 0, make_app(data).server, threaded=True)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", data
    finally:
        server.shutdown()
        thread.join()


@contextlib.contextmanager
def opened(chromium, **options):
    """A page with nothing kept; `page.seen` lists the addresses that it asked for, `page.wrong` what went wrong."""
    context = chromium.new_context(viewport={"width": 1400, "height": 900}, **options)
    try:
        page = context.new_page()
        page.set_default_timeout(WAIT)
        page.seen, page.wrong = [], []
        page.on("request", lambda request: page.seen.append(request.url))
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("dialog", lambda dialog: (page.wrong.append(f"dialog {dialog.message}"), dialog.dismiss()))
        yield page
    finally:
        context.close()


def look(page, address):
    """Go to an address and wait until its results are there."""
    page.goto(address)
    page.wait_for_selector("#results h1")
    if page.locator("#results .graph").count():
        page.wait_for_selector("#results .graph .main-svg")

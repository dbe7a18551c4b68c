"""One browser for all tests of this folder: starting it takes longer than most of them."""

from __future__ import annotations

import pytest


@pytest.fixture(scope="session")
def chromium():
    """A real browser without a window."""
    from browser import browser_or_skip

    path = browser_or_skip()
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root has no sandbox in a container; what is opened is our own.
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()

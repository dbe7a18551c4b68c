"""Figures as they look on screen, as SVG and PDF, drawn by Kaleido in a browser. Figures for a paper need neither."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from orchestrator.drawing import style
from orchestrator.drawing.panels import Spec
from orchestrator.store.files import write_file

#: Width in pixels of a figure on a page in a window that is 1400 wide.
WIDTH = 1326
#: Seconds within which the browser must start.
START = 60
_KINDS = ("svg", "pdf")
_NO_KALEIDO = "Kaleido 1.5 or newer is missing, which --screen-figures needs: pip install 'signsym[screen]'"
_NO_BROWSER = (
    "Kaleido needs Chrome or Chromium for --screen-figures but {}: `apt-get install chromium`, or name one by the "
    "environment variable BROWSER_PATH; the report without --screen-figures needs none"
)
# Browsers contact their vendors, for updates for instance, even if they only open files. Nothing listens here.
_NOWHERE = "http://127.0.0.1:1"


class ScreenError(ValueError):
    """Kaleido or its browser is missing or fails."""


class Screen:
    """One browser for all figures, open within `with`; it reaches no other host. ScreenError where there is none."""

    def __enter__(self) -> Self:
        with ExitStack() as opened:
            # In another thread, because the caller's may have a running loop already.
            self._thread, self._runner = opened.enter_context(ThreadPoolExecutor(1)), asyncio.Runner()
            opened.callback(lambda: self._thread.submit(self._runner.close).result())
            self._browser = self._run(_started())
            opened.callback(lambda: self._run(self._browser.close()))
            self._opened = opened.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def save(self, figure: Spec, stem: Path) -> list[Path]:
        """Write STEM.svg and STEM.pdf in the light scheme; their paths. ScreenError where the browser fails."""
        # The page's figures have a transparent background, which would be dark in a dark viewer.
        drawn = figure | {"layout": figure["layout"] | {"paper_bgcolor": style.PAGE["light"]}}
        paths = [stem.with_name(f"{stem.name}.{kind}") for kind in _KINDS]
        try:
            contents = self._run(self._drawn(drawn))
        # A browser's failures come as errors of many kinds, without a common base class.
        except Exception as error:
            what = f"{type(error).__name__} {' '.join(str(error).split())}"
            raise ScreenError(f"the browser for --screen-figures does not draw {stem.name}: {what}") from None
        for path, content in zip(paths, contents, strict=True):
            write_file(path, content)
        return paths

    async def _drawn(self, figure: dict[str, Any]) -> list[bytes]:
        drawings = [self._browser.calc_fig(figure, opts={"format": kind, "width": WIDTH}) for kind in _KINDS]
        return list(await asyncio.gather(*drawings))

    def _run(self, coroutine: Coroutine[Any, Any, Any]) -> Any:
        return self._thread.submit(self._runner.run, coroutine).result()


async def _started() -> Any:
    try:
        from kaleido import Kaleido, errors
    except ImportError:
        raise ScreenError(_NO_KALEIDO) from None
    # Failures are reported once, by ScreenError.
    logging.getLogger("choreographer").setLevel(logging.CRITICAL)
    # By default Kaleido prefers a browser that it once downloaded to the one in BROWSER_PATH.
    named = os.environ.get("BROWSER_PATH", "")
    try:
        browser = Kaleido(n=len(_KINDS), mathjax=False, path=named, proxy_server=_NOWHERE)
    except errors.ChromeNotFoundError:
        raise ScreenError(_NO_BROWSER.format(f"finds none{named and ' at '}{named}")) from None
    except RuntimeError:  # An older one does not know the proxy.
        raise ScreenError(_NO_KALEIDO) from None
    try:
        await asyncio.wait_for(browser.open(), START)
    except Exception:
        # `close` would wait for ever for a browser that runs but does not answer.
        browser.subprocess.terminate()
        await asyncio.to_thread(browser.subprocess.wait)
        await browser.close()
        raise ScreenError(_NO_BROWSER.format(f"cannot start {named or 'the one that is installed'}")) from None
    return browser

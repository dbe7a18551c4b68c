"""`signsym explore`: stores in the browser."""

from __future__ import annotations

import argparse

from rich.console import Console

from orchestrator.explorer.server import explore


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Serve the explorer until Ctrl-C."""
    explore(parsed.storages, parsed.port, console)

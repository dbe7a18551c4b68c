"""`signsym export`: a tidy table of a store."""

from __future__ import annotations

import argparse

from rich.console import Console

from orchestrator.engine.sweep import show_skipped
from orchestrator.results.export import export
from orchestrator.store.store import open_store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Write the table and print its number of rows."""
    store = open_store(parsed.storage)
    rows = export(store, parsed.what, parsed.out)
    show_skipped(store.skipped, console)
    console.print(f"{rows:,} rows: {parsed.out.resolve()}")

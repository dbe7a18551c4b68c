"""`signsym export`: a tidy table of one or several stores."""

from __future__ import annotations

import argparse

from rich.console import Console

from orchestrator.engine.sweep import show_skipped
from orchestrator.results.export import export
from orchestrator.store.store import open_store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Write the table and print its number of rows."""
    exported = export([open_store(storage) for storage in parsed.storages], parsed.what, parsed.out)
    show_skipped(exported.skipped, console)
    for problem in exported.problems:
        console.print(problem, soft_wrap=True)
    console.print(f"{exported.rows:,} rows: {parsed.out.resolve()}")

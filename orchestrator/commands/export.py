"""`signsym export`: a tidy table of one or several stores, or entries of RobustBench's leaderboard."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from orchestrator.commands.progress import Lines
from orchestrator.drawing.style import counted
from orchestrator.engine.sweep import show_skipped
from orchestrator.results.export import export
from orchestrator.results.live_stores import opened
from orchestrator.results.robustbench import write_entries
from orchestrator.store.store import Store, open_store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Write the table and print its number of rows; for RobustBench the entries."""
    stores = [open_store(storage) for storage in parsed.storages]
    if parsed.what == "robustbench":
        return _robustbench(stores, parsed.out, console)
    exported = export(stores, parsed.what, parsed.out, Lines(console))
    show_skipped(exported.skipped, console)
    for problem in exported.problems:
        console.print(problem, soft_wrap=True)
    console.print(f"{counted(exported.rows, 'row')}: {parsed.out.resolve()}")


def _robustbench(stores: Sequence[Store], out: Path, console: Console) -> None:
    if out.suffix in (".csv", ".parquet") or out.is_file():
        raise ValueError(f"expected a folder for the entries of RobustBench, got --out {out}")
    data = opened([store.uri for store in stores], at_once=True)
    data.check(Lines(console))
    written = write_entries(data, out)
    show_skipped(data.skipped, console)
    for problem in [*data.snapshot.problems, *data.snapshot.mixtures()]:
        console.print(problem, soft_wrap=True)
    console.print(f"{written:,} entries: {out.resolve()}")

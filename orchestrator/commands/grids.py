"""`signsym grids`: the grids that come with signsym."""

from __future__ import annotations

import argparse

from rich.console import Console
from rich.table import Table

from orchestrator.gridfile.shipped import first_sentence, shipped_grids


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Print the name of each shipped grid with its first sentence."""
    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, path in shipped_grids().items():
        table.add_row(name, first_sentence(path))
    console.print(table)

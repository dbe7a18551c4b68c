"""`signsym schema`: the JSON Schema of grid files, for editors."""

from __future__ import annotations

import argparse
import json

from rich.console import Console

from orchestrator.gridfile.schema import grid_schema


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Print the schema."""
    print(json.dumps(grid_schema(), indent=1, ensure_ascii=False))

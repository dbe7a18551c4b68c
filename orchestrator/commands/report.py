"""`signsym report`: the pages of stores as files."""

from __future__ import annotations

import argparse
import contextlib
import shlex

from rich.console import Console

from orchestrator.commands.progress import Lines
from orchestrator.commands.status import stored_plans
from orchestrator.drawing.screen import Screen
from orchestrator.reports.static import write_report
from orchestrator.results.live_stores import opened
from orchestrator.store.store import open_store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Write the report and print where it is."""
    stores = [open_store(storage) for storage in parsed.storages]
    if parsed.out.is_file() or parsed.out.resolve() in [store.folder for store in stores]:
        kind = "a file" if parsed.out.is_file() else "the store itself"
        raise ValueError(f"--out: expected a folder for the report, got {kind}: {parsed.out}")
    plans = [plan for store in stores for plan in stored_plans(store, console)]
    progress = Lines(console)
    data = opened(parsed.storages, progress=progress)
    with Screen() if parsed.screen_figures else contextlib.nullcontext() as screen:
        page = write_report(
            data,
            parsed.out,
            title=", ".join(dict.fromkeys(plan.grid for _, plan in plans)) or "signsym",
            missing=len(data.status.cells) - data.done if data.names else sum(plan.missing for _, plan in plans),
            command=shlex.join(["signsym", "report", *parsed.storages, "--out", str(parsed.out)])
            + " --screen-figures" * (screen is not None),
            screen=screen,
            progress=progress,
        )
    console.print(f"report: {page.resolve()}")

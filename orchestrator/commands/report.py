"""`signsym report`: the pages of a store as files."""

from __future__ import annotations

import argparse
import contextlib

from rich.console import Console

from orchestrator.commands.status import stored_plans
from orchestrator.drawing.screen import Screen
from orchestrator.reports.static import write_report
from orchestrator.results.live_store import LiveStore
from orchestrator.store.store import open_store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Write the report and print where it is."""
    plans = stored_plans(open_store(parsed.storage))
    with Screen() if parsed.screen_figures else contextlib.nullcontext() as screen:
        page = write_report(
            LiveStore(parsed.storage),
            parsed.out,
            title=", ".join(plan.grid for _, plan in plans) or "signsym",
            missing=sum(plan.missing for _, plan in plans),
            command=f"signsym report {parsed.storage} --out {parsed.out}" + " --screen-figures" * (screen is not None),
            screen=screen,
        )
    console.print(f"report: {page.resolve()}", highlight=False)

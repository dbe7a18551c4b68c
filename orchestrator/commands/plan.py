"""`signsym plan`: the jobs that a grid needs, and those that are done; nothing runs."""

from __future__ import annotations

import argparse
from pathlib import Path

from rich.console import Console

from orchestrator.commands.progress import Lines, waiting
from orchestrator.engine.prepare import sound_plan
from orchestrator.engine.sweep import show_skipped, to_run
from orchestrator.gridfile.idle_sets import refuse_idle
from orchestrator.gridfile.shipped import grid_path
from orchestrator.gridfile.yamlfile import read
from orchestrator.plan.estimate import survey_store
from orchestrator.plan.grids import GridText, planning_one
from orchestrator.plan.summary import show
from orchestrator.store.store import Store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Print the plan of a grid against a store."""
    path, store = file_of(parsed.grid, console), Store(parsed.storage)
    grid = GridText(read(path), str(path), tuple(parsed.sets))
    with planning_one(grid) as plan_of_grid:
        survey = survey_store(store, Lines(console))
        with waiting(console, "the store is read; planning the grid"):
            full = plan_of_grid()
        refuse_idle(grid.text, grid.sets)
        # The process that has planned also says how fast the store's jobs were.
        plan = sound_plan(full, survey, store)
        show(plan, survey, console)
    for notice in full.notices:
        console.print(notice, style="yellow", soft_wrap=True)
    if out := len(plan.jobs) - len(to_run(plan.jobs, store, retry_failed=False)[0]):
        words = f"{out} of the missing jobs failed before or wait for one that did: without --retry-failed a sweep"
        console.print(f"{words} leaves them out", soft_wrap=True)
    show_skipped(store.skipped, console)


def file_of(grid: str, console: Console) -> Path:
    """The file of a grid; it is printed where the command line names the grid otherwise."""
    path = grid_path(grid)
    if str(path) != grid:
        console.print(f"grid: {path}", soft_wrap=True)
    return path

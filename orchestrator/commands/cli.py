"""The command line: signsym plan | sweep | status | compact | explore | report | audit | attack | export | data."""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table
from rich.text import Text

from orchestrator.commands.arguments import parser

# Heavy imports are inside the commands, so that --help and a wrong option answer at once.
WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (see `orchestrator.engine.sweep`)."""
    parsed = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # A locale that cannot encode ε shows its number: a character that cannot be printed must not end a sweep.
        if isinstance(stream, io.TextIOWrapper) and "utf" not in (stream.encoding or "").lower():
            stream.reconfigure(errors="backslashreplace")
    # On a terminal rich knows the width; elsewhere lines are not wrapped, so that they can be searched.
    # Markup is off: paths and errors may contain brackets.
    console = (
        Console(markup=False) if sys.stdout.isatty() else Console(width=10_000, force_terminal=False, markup=False)
    )
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        return COMMANDS[parsed.command](parsed, console)
    except (ValueError, OSError) as error:
        errors.print(Text.assemble((f"signsym {parsed.command}: ", "red"), str(error)))
        return WRONG


def _grid_path(parsed: argparse.Namespace, console: Console) -> Path:
    from orchestrator.gridfile.shipped import grid_path

    path = grid_path(parsed.grid)
    if str(path) != parsed.grid:
        console.print(f"grid: {path}", highlight=False, soft_wrap=True)
    return path


def _plan(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.engine.prepare import sound_plan
    from orchestrator.engine.sweep import COMPLETE, show_skipped
    from orchestrator.plan.estimate import surveying
    from orchestrator.plan.summary import show
    from orchestrator.store.store import Store

    path, store = _grid_path(parsed, console), Store(parsed.storage)
    with surveying(store) as survey_of_store:
        from orchestrator.gridfile.grid import load

        grid = load(path, parsed.sets)
        survey = survey_of_store()
    show(sound_plan(grid, survey, store), survey, console)
    show_skipped(store.skipped, console)
    return COMPLETE


def _sweep(parsed: argparse.Namespace, console: Console) -> int:
    if parsed.plan:
        return _plan(parsed, console)
    from orchestrator.engine.settings import Settings
    from orchestrator.engine.sweep import sweep

    settings = Settings(
        storage=parsed.storage,
        data_root=parsed.data_root,
        # Ray sets this variable in a job that was submitted to a cluster.
        address=parsed.address or os.environ.get("RAY_ADDRESS") or None,
        dashboard=parsed.dashboard,
        trackers=str(Path(parsed.trackers).expanduser().resolve()),
        retry_failed=parsed.retry_failed,
    )
    return sweep(_grid_path(parsed, console), parsed.sets, settings, console)


def _status(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.commands.status import show_status
    from orchestrator.commands.verify import verify
    from orchestrator.store.store import open_store

    store = open_store(parsed.storage)
    return verify(store, console) if parsed.verify else show_status(store, console)


def _compact(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.commands.compact import run_compact
    from orchestrator.store.store import open_store

    return run_compact(open_store(parsed.storage), console)


def _report(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.commands.status import stored_plans
    from orchestrator.drawing.screen import Screen
    from orchestrator.engine.sweep import COMPLETE
    from orchestrator.reports.static import write_report
    from orchestrator.results.live_store import LiveStore
    from orchestrator.store.store import open_store

    plans = stored_plans(open_store(parsed.storage))
    with Screen() if parsed.screen_figures else contextlib.nullcontext() as screen:
        page = write_report(
            LiveStore(parsed.storage),
            Path(parsed.out),
            title=", ".join(plan.grid for _, plan in plans) or "signsym",
            missing=sum(plan.missing for _, plan in plans),
            command=f"signsym report {parsed.storage} --out {parsed.out}" + " --screen-figures" * (screen is not None),
            screen=screen,
        )
    console.print(f"report: {page.resolve()}", highlight=False)
    return COMPLETE


def _audit(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.commands.audit import run_audit
    from orchestrator.engine.sweep import COMPLETE
    from orchestrator.store.store import open_store

    root = None if parsed.no_probes else Path(parsed.data_root)
    grid = Path(parsed.grid) if parsed.grid else None
    run_audit(open_store(parsed.storage), root, grid, parsed.json, console)
    return COMPLETE


def _attack(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.commands import attack

    return attack.run(parsed, console)


def _explore(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.engine.sweep import COMPLETE
    from orchestrator.explorer.server import explore

    explore(parsed.storage, parsed.port, console)
    return COMPLETE


def _export(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.engine.sweep import COMPLETE, show_skipped
    from orchestrator.results.export import export
    from orchestrator.store.store import open_store

    store = open_store(parsed.storage)
    rows = export(store, parsed.what, Path(parsed.out))
    show_skipped(store.skipped, console)
    console.print(f"{rows:,} rows: {Path(parsed.out).resolve()}", highlight=False)
    return COMPLETE


def _data(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.commands import data

    return data.check(parsed, console) if parsed.action == "check" else data.prepare(parsed, console)


def _grids(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.engine.sweep import COMPLETE
    from orchestrator.gridfile.shipped import first_sentence, shipped_grids

    table = Table(box=None, show_header=False, padding=(0, 2, 0, 0))
    for name, path in shipped_grids().items():
        table.add_row(name, first_sentence(path))
    console.print(table)
    return COMPLETE


def _schema(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.engine.sweep import COMPLETE
    from orchestrator.gridfile.schema import grid_schema

    print(json.dumps(grid_schema(), indent=1, ensure_ascii=False))
    return COMPLETE


def _completion(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.commands.completion import completion

    print(completion(parsed.shell))
    return 0


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Console], int]] = {
    "plan": _plan,
    "sweep": _sweep,
    "status": _status,
    "compact": _compact,
    "explore": _explore,
    "report": _report,
    "audit": _audit,
    "attack": _attack,
    "export": _export,
    "data": _data,
    "grids": _grids,
    "schema": _schema,
    "completion": _completion,
}

if __name__ == "__main__":
    sys.exit(main())

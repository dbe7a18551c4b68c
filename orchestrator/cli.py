"""The command line: signsym plan | sweep | status | explore | report | audit | attack | export | data."""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from orchestrator.arguments import parser

# The heavy imports wait until they are needed, so that --help and a wrong option answer at once.
WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (see `orchestrator.sweeping`)."""
    parsed = parser().parse_args(arguments)
    for stream in (sys.stdout, sys.stderr):
        # Under a locale without, say, ε, its number is shown: no word is worth a sweep.
        if isinstance(stream, io.TextIOWrapper) and "utf" not in (stream.encoding or "").lower():
            stream.reconfigure(errors="backslashreplace")
    # On a terminal rich knows the width; elsewhere lines are not broken, so that they can be searched.
    # Without markup: paths and errors may hold brackets.
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
    path = Path(parsed.grid)
    shipped = Path(__file__).resolve().parents[1] / path
    if not path.exists() and shipped.is_file():
        # On a cluster a sweep starts in the head's home, and the grids are where the packages are.
        path = shipped
        console.print(f"grid: {path}", highlight=False, soft_wrap=True)
    return path


def _plan(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.estimate import survey
    from orchestrator.grid import load
    from orchestrator.planning import show
    from orchestrator.prepare import sound_plan
    from orchestrator.store import Store
    from orchestrator.sweeping import COMPLETE, show_skipped

    grid, store = load(_grid_path(parsed, console), parsed.sets), Store(parsed.storage)
    found = survey(store)
    show(sound_plan(grid, found, store), found, console)
    show_skipped(store.skipped, console)
    return COMPLETE


def _sweep(parsed: argparse.Namespace, console: Console) -> int:
    if parsed.plan:
        return _plan(parsed, console)
    from orchestrator.sweeping import Settings, sweep

    settings = Settings(
        storage=parsed.storage,
        data_root=parsed.data_root,
        # Ray's own variable; a job that was submitted to a cluster finds it set.
        address=parsed.address or os.environ.get("RAY_ADDRESS") or None,
        dashboard=parsed.dashboard,
        trackers=str(Path(parsed.trackers).expanduser().resolve()),
        retry_failed=parsed.retry_failed,
    )
    return sweep(_grid_path(parsed, console), parsed.sets, settings, console)


def _status(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.status import show_status
    from orchestrator.store import open_store
    from orchestrator.verify import verify

    store = open_store(parsed.storage)
    return verify(store, console) if parsed.verify else show_status(store, console)


def _report(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.explorer.data import Data
    from orchestrator.explorer.screen import Screen
    from orchestrator.explorer.static import write_report
    from orchestrator.status import stored_plans
    from orchestrator.store import open_store
    from orchestrator.sweeping import COMPLETE

    plans = stored_plans(open_store(parsed.storage))
    with Screen() if parsed.screen_figures else contextlib.nullcontext() as screen:
        page = write_report(
            Data(parsed.storage),
            Path(parsed.out),
            title=", ".join(plan.grid for _, plan in plans) or "signsym",
            missing=sum(plan.missing for _, plan in plans),
            command=f"signsym report {parsed.storage} --out {parsed.out}" + " --screen-figures" * (screen is not None),
            screen=screen,
        )
    console.print(f"report: {page.resolve()}", highlight=False)
    return COMPLETE


def _audit(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.audit import run_audit
    from orchestrator.store import open_store
    from orchestrator.sweeping import COMPLETE

    root = None if parsed.no_probes else Path(parsed.data_root)
    grid = Path(parsed.grid) if parsed.grid else None
    run_audit(open_store(parsed.storage), root, grid, parsed.json, console)
    return COMPLETE


def _attack(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator import attackcli

    return attackcli.run(parsed, console)


def _explore(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.explorer.server import explore
    from orchestrator.sweeping import COMPLETE

    explore(parsed.storage, parsed.port, console)
    return COMPLETE


def _export(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.explorer.export import export
    from orchestrator.store import open_store
    from orchestrator.sweeping import COMPLETE, show_skipped

    store = open_store(parsed.storage)
    rows = export(store, parsed.what, Path(parsed.out))
    show_skipped(store.skipped, console)
    console.print(f"{rows:,} rows: {Path(parsed.out).resolve()}", highlight=False)
    return COMPLETE


def _data(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator import datacli

    return datacli.check(parsed, console) if parsed.action == "check" else datacli.prepare(parsed, console)


COMMANDS: Mapping[str, Callable[[argparse.Namespace, Console], int]] = {
    "plan": _plan,
    "sweep": _sweep,
    "status": _status,
    "explore": _explore,
    "report": _report,
    "audit": _audit,
    "attack": _attack,
    "export": _export,
    "data": _data,
}

if __name__ == "__main__":
    sys.exit(main())

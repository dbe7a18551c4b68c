"""The command line: signsym plan | sweep | status | explore | report | audit | attack | export | data."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

from orchestrator.arguments import parser

# The heavy imports wait until they are needed, so that --help and a wrong option answer at once.
if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from orchestrator.store import Store

WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (see `orchestrator.sweeping`)."""
    parsed = parser().parse_args(arguments)
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
    from orchestrator.plan import compile_plan
    from orchestrator.planning import show
    from orchestrator.store import Store
    from orchestrator.sweeping import COMPLETE

    grid = load(_grid_path(parsed, console), parsed.sets)
    found = survey(Store(parsed.storage))
    show(compile_plan(grid, found.done_cells, found.done_models), found, console)
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
    from orchestrator import tables
    from orchestrator.claims import alive
    from orchestrator.sweeping import COMPLETE, FAILED

    store = _existing(parsed.storage)
    running = {trial["job"]: trial | {"host": sign["host"]} for sign in alive(store) for trial in sign["running"]}
    failures = {failure["job"]: failure for failure in store.table("failures", tables.FAILURES).to_pylist()}
    missing = 0
    for name, plan in _plans(store):
        missing += plan.missing
        failed = [key for key in plan.jobs if key in failures]
        blocked: set[str] = set()
        for job in plan.jobs.values():
            if any(parent in failures or parent in blocked for parent in job.parents):
                blocked.add(job.key)
        going = [running[key] for key in plan.jobs if key in running]
        console.print(
            f"{name}: {len(plan.done)} of {len(plan.cells)} cells done; jobs: {len(going)} running, "
            f"{len(failed)} failed, {len(blocked)} blocked, "
            f"{len(plan.jobs) - len(going) - len(failed) - len(blocked)} missing",
            highlight=False,
        )
        for trial in going:
            line = f"  running: {trial['title']}, {trial['seconds']:.0f} s so far, sweep on {trial['host']}"
            console.print(line, highlight=False, markup=False)
        for key in failed:
            console.print(f"  failed: {failures[key]['title']} on {failures[key]['host']}", markup=False)
            console.print(failures[key]["traceback"].rstrip(), highlight=False, markup=False)
    for name, reason in store.skipped.items():
        console.print(f"skipped {name}: {reason}", highlight=False, markup=False)
    return FAILED if missing else COMPLETE


def _report(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator.explorer.data import Data
    from orchestrator.explorer.screen import Screen
    from orchestrator.explorer.static import write_report
    from orchestrator.sweeping import COMPLETE

    plans = _plans(_existing(parsed.storage))
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
    from orchestrator.sweeping import COMPLETE

    root = None if parsed.no_probes else Path(parsed.data_root)
    grid = Path(parsed.grid) if parsed.grid else None
    run_audit(_existing(parsed.storage), root, grid, parsed.json, console)
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
    from orchestrator.sweeping import COMPLETE

    rows = export(_existing(parsed.storage), parsed.what, Path(parsed.out))
    console.print(f"{rows:,} rows: {Path(parsed.out).resolve()}", highlight=False)
    return COMPLETE


def _data(parsed: argparse.Namespace, console: Console) -> int:
    from orchestrator import datacli

    return datacli.check(parsed, console) if parsed.action == "check" else datacli.prepare(parsed, console)


def _existing(storage: str) -> Store:
    from orchestrator.store import Store, StoreError

    store = Store(storage)
    if not store.names("grids", ".yaml"):
        raise StoreError(f"there is no sweep in {store.uri}; make one with: signsym sweep GRID --storage {storage}")
    return store


def _plans(store: Store) -> list[tuple[str, Plan]]:
    """The plans of all grids that were asked of the store, by the names of their files."""
    from orchestrator.grid import GridError, load
    from orchestrator.plan import compile_plan
    from orchestrator.sweeping import SET_MARK

    cells, models = store.done_cells(), store.done_models()
    plans = []
    for name in store.names("grids", ".yaml"):
        text = store.read(f"grids/{name}").decode()
        sets = [line.removeprefix(SET_MARK) for line in text.splitlines() if line.startswith(SET_MARK)]
        with tempfile.NamedTemporaryFile("w", suffix=name) as file:
            file.write(text)
            file.flush()
            try:
                plans.append((name, compile_plan(load(Path(file.name), sets), cells, models)))
            except GridError as error:
                # A grid of another version of this program must not hide the others.
                store.skipped[f"grids/{name}"] = str(error).splitlines()[0]
    return plans


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

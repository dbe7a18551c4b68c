"""The command line: signsym plan | sweep | status | explore | report | audit | attack | export | data."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.text import Text

# The heavy imports wait until they are needed, so that --help and a wrong option answer at once.
if TYPE_CHECKING:
    from orchestrator.plan import Plan
    from orchestrator.store import Store

WRONG = 2


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status (see `orchestrator.sweeping`)."""
    parsed = _parser().parse_args(arguments)
    # On a terminal rich knows the width; elsewhere lines are not broken, so that they can be searched.
    # Without markup: paths and errors may hold brackets.
    console = (
        Console(markup=False) if sys.stdout.isatty() else Console(width=10_000, force_terminal=False, markup=False)
    )
    errors = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    try:
        return int(parsed.run(parsed, console))
    except (ValueError, OSError) as error:
        errors.print(Text.assemble((f"signsym {parsed.command}: ", "red"), str(error)))
        return WRONG


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="signsym", description="Sweeps over sign-symmetry rules and attacks.")
    commands = parser.add_subparsers(dest="command", required=True)

    plan = commands.add_parser("plan", help="what a grid would run, and what is done already; nothing runs")
    _grid_arguments(plan)
    plan.set_defaults(run=_plan)

    sweep = commands.add_parser("sweep", help="run what a grid still lacks")
    _grid_arguments(sweep)
    root = os.environ.get("SIGNSYM_DATA_ROOT", "data")
    sweep.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
    sweep.add_argument("--address", help="Ray cluster to join, such as auto; default: a Ray of its own on this machine")
    where = "where the grid's callbacks write (default: ray_results)"
    sweep.add_argument("--trackers", default="ray_results", metavar="DIR", help=where)
    sweep.add_argument("--dashboard", action="store_true", help="start Ray's dashboard with a Ray of its own")
    sweep.add_argument("--plan", action="store_true", help="only print the plan")
    sweep.add_argument("--retry-failed", action="store_true", help="try jobs again that failed for good before")
    sweep.set_defaults(run=_sweep)

    status = commands.add_parser("status", help="done, running, failed, blocked and missing jobs of a store")
    status.add_argument("storage", metavar="STORAGE")
    status.set_defaults(run=_status)

    explore = commands.add_parser("explore", help="look at a store in the browser, also while a sweep writes to it")
    explore.add_argument("storage", metavar="STORAGE")
    explore.add_argument("--port", type=int, default=8050, help="port of 127.0.0.1 (default: 8050)")
    explore.set_defaults(run=_explore)

    report = commands.add_parser("report", help="static pages with curves, tables and provenance")
    report.add_argument("storage", metavar="STORAGE")
    report.add_argument("--out", required=True, metavar="DIR")
    report.set_defaults(run=_report)

    audit = commands.add_parser(
        "audit", help="a verdict for each model: sound, weak attack, masked gradient, undecided"
    )
    audit.add_argument("storage", metavar="STORAGE")
    audit.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
    audit.add_argument("--no-probes", action="store_true", help="do not load the models and their data")
    audit.add_argument("--grid", metavar="FILE", help="write the grid that supplies what is missing")
    audit.add_argument("--json", action="store_true", help="print JSON instead of a table")
    audit.set_defaults(run=_audit)

    attack = commands.add_parser("attack", help="attack and judge one checkpoint of your own")
    attack.add_argument("--weights", required=True, metavar="FILE", help="a state dict: .safetensors, or torch's")
    attack.add_argument("--backbone", required=True, help='a name, or "{name: smallcnn, width: 8}"')
    attack.add_argument("--dataset", required=True, help='likewise: "{name: cifar10, size: 64}"; its test images')
    attack.add_argument("--rule", default="bp", help="the learning rule whose backward pass it has (default: bp)")
    attack.add_argument("--attack", action="append", default=[], help="likewise, repeatable; default: what checks need")
    attack.add_argument("--gradient", action="append", default=[], help="repeatable: feedback, exact, transfer")
    attack.add_argument("--epsilon", nargs="+", default=["2/255", "8/255", "0.1", "0.5"], metavar="E", help="L∞ radii")
    attack.add_argument("--twin", metavar="FILE", help="weights of a network trained by backpropagation, for transfer")
    attack.add_argument("--images", type=int, metavar="N", help="the first N test images (default: all)")
    attack.add_argument("--seed", type=int, default=0, help="of the attacks, and of the rule (default: 0)")
    attack.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
    attack.add_argument("--out", metavar="FILE.csv", help="write the rows there")
    attack.set_defaults(run=_attack)

    export = commands.add_parser("export", help="a tidy table for an analysis of one's own, as CSV or Parquet")
    export.add_argument("storage", metavar="STORAGE")
    export.add_argument("--out", required=True, metavar="FILE", help="ends with .csv or .parquet")
    what = "a row per cell, per image of each cell, or per point of a curve with its interval (default: results)"
    export.add_argument("--what", choices=("results", "outcomes", "curves"), default="results", help=what)
    export.set_defaults(run=_export)

    data = commands.add_parser("data", help="what is there of a data set, and its images decoded before a sweep")
    actions = data.add_subparsers(dest="action", required=True)
    check = actions.add_parser(
        "check", help="what is there, what is missing and where it comes from; nothing is written"
    )
    check.add_argument(
        "--sample", type=int, default=200, metavar="N", help="images to decode as a sample (default: 200)"
    )
    prepare = actions.add_parser("prepare", help="decode the images into the cache that all trials share")
    for action in (check, prepare):
        action.add_argument("dataset", metavar="NAME", help="the data set, as a grid calls it")
        action.add_argument("--data-root", default=root, metavar="DIR", help=f"where data sets lie (default: {root})")
        what = "a parameter of the data set, such as size=64 or split=500/100/rest"
        action.add_argument("--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help=what)
        action.set_defaults(run=_data)
    return parser


def _grid_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("grid", metavar="GRID", help="the grid file")
    storage = os.environ.get("SIGNSYM_STORAGE", "runs")
    what = f"where results are kept: a folder or a bucket such as s3://bucket/sweeps (default: {storage})"
    parser.add_argument("--storage", default=storage, metavar="URI", help=what)
    parser.add_argument(
        "--set", dest="sets", action="append", default=[], metavar="KEY=VALUE", help="put a value over the grid's"
    )


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
    from orchestrator.explorer.static import write_report
    from orchestrator.sweeping import COMPLETE

    plans = _plans(_existing(parsed.storage))
    page = write_report(
        Data(parsed.storage),
        Path(parsed.out),
        title=", ".join(plan.grid for _, plan in plans) or "signsym",
        missing=sum(plan.missing for _, plan in plans),
        command=f"signsym report {parsed.storage} --out {parsed.out}",
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


if __name__ == "__main__":
    sys.exit(main())

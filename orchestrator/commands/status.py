"""`signsym status`: done, running, failed, blocked and missing jobs by grid, and files that could not be used."""

from __future__ import annotations

import argparse
import gc
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console

from orchestrator.commands.compact import suggest
from orchestrator.commands.progress import Lines, waiting
from orchestrator.commands.verify import verify
from orchestrator.engine.sweep import COMPLETE, FAILED, show_skipped
from orchestrator.jobs.graph import children_of, descendants
from orchestrator.plan.estimate import survey_store
from orchestrator.plan.full import Plan
from orchestrator.plan.grids import planning_stored
from orchestrator.store import tables
from orchestrator.store.alignment import alignment_folder, iter_trainings
from orchestrator.store.claims import alive
from orchestrator.store.store import Store, open_store

#: Failed jobs of one error that are named, errors that are shown, and running jobs that are named.
TITLES, ERRORS, RUNNING = 10, 10, 20


def run(parsed: argparse.Namespace, console: Console) -> int:
    """Print the state of a store, or verify its files."""
    store = open_store(parsed.storage)
    return verify(store, console) if parsed.verify else show_status(store, console)


def show_status(store: Store, console: Console) -> int:
    """Print the state of the store; exit status 0 where every cell of every readable grid has a result."""
    running = {trial["job"]: trial | {"host": sign["host"]} for sign in alive(store) for trial in sign["running"]}
    failures = {failure["job"]: failure for failure in store.table("failures", tables.FAILURES).to_pylist()}
    plans = stored_plans(store, console)
    if not plans:
        words = (
            f"no grid that can be read is in {store.uri}, so that it is unknown what was planned; to look at results"
        )
        console.print(f"{words}: signsym explore {store.word}", soft_wrap=True)
    for name, plan in plans:
        _show_plan(name, plan, running, failures, console)
    known = {key for _, plan in plans for key in plan.jobs}
    if unplanned := [failure for key, failure in failures.items() if key not in known]:
        console.print("failed jobs that no readable grid needs any more:")
        _show_failures(unplanned, console)
    _show_alignment(store, console)
    show_skipped(store.skipped, console)
    if store.unsealed:
        words = f"{len(store.unsealed):,} files were written before files had digests, so that damage to them may pass"
        console.print(f"{words}: signsym status {store.word} --verify names them", soft_wrap=True)
    suggest(store, console)
    return FAILED if any(plan.missing for _, plan in plans) else COMPLETE


def _show_alignment(store: Store, console: Console) -> None:
    """Print how many trainings have a table of alignment, if any has one; unreadable files go to `store.skipped`."""
    folder = alignment_folder(store)
    count = sum(len(table["job"].unique()) for table in iter_trainings(folder))
    store.skipped |= folder.skipped
    if count:
        words = f"alignment of B with W and of gradients with BP's: {count:,} trainings; as a table: signsym export "
        console.print(f"{words}{store.word} --what alignment --out alignment.csv", soft_wrap=True)


def stored_plans(store: Store, console: Console) -> list[tuple[str, Plan]]:
    """The plans of the stored grids, by name; a grid that cannot be read is named in `store.skipped`.

    Where it takes long, how far it is is printed now and then.
    """
    # What is made here stays: to search it for garbage is a sixth of the time that a hundred thousand jobs take.
    gc.disable()
    try:
        with planning_stored(store) as plans_of_grids:
            survey = survey_store(store, Lines(console))
            with waiting(console, "the store is read; planning its grids"):
                full_plans = plans_of_grids()
        return [(name, full.left(survey.done_cells, survey.done_models)) for name, full in full_plans.items()]
    finally:
        gc.enable()


def _show_plan(
    name: str,
    plan: Plan,
    running: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> None:
    failed = [key for key in plan.jobs if key in failures]
    blocked = descendants(children_of(plan.jobs), failures) - set(failures)
    active = [running[key] for key in plan.jobs if key in running]
    console.print(
        f"{name}: {len(plan.done)} of {len(plan.cells)} cells done; jobs: {len(active)} running, "
        f"{len(failed)} failed, {len(blocked)} blocked, "
        f"{len(plan.jobs) - len(active) - len(failed) - len(blocked)} missing"
    )
    for trial in active[:RUNNING]:
        line = f"  running: {trial['title']}, {trial['seconds']:.0f} s so far, sweep on {trial['host']}"
        console.print(line)
    if len(active) > RUNNING:
        console.print(f"  running: {len(active) - RUNNING:,} more; all are on the page Runs of signsym explore")
    _show_failures([failures[key] for key in failed], console)
    if failed:
        console.print("  to try them again, repeat the command of the sweep with --retry-failed at its end")


def _show_failures(failures: Sequence[Mapping[str, Any]], console: Console) -> None:
    """Print failed jobs by their error, each error once, with the traceback of the first job that has it.

    Of many errors, such as those that name a process or a number of bytes, those of most jobs.
    """
    by_error: dict[str, list[Mapping[str, Any]]] = {}
    for failure in failures:
        by_error.setdefault(failure["error"], []).append(failure)
    errors = sorted(by_error.values(), key=len, reverse=True)
    for alike in errors[:ERRORS]:
        for failure in alike[:TITLES]:
            console.print(f"  failed: {failure['title']} on {failure['host']}")
        if len(alike) > TITLES:
            console.print(
                f"  failed: {len(alike) - TITLES:,} more by the same error; all are on the page Runs of signsym explore"
            )
        console.print((alike[0]["traceback"] or alike[0]["error"]).rstrip())
    if others := errors[ERRORS:]:
        words = f"{sum(map(len, others)):,} more by {len(others):,} other errors"
        console.print(f"  failed: {words}; all are on the page Runs of signsym explore")

"""`signsym status`: done, running, failed, blocked and missing, by grid, and what of the store could not be used."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.console import Console

from orchestrator.engine.sweep import COMPLETE, FAILED, show_skipped
from orchestrator.gridfile.stored import grid_names, stored_grid
from orchestrator.plan.compile import Plan, compile_plan
from orchestrator.plan.estimate import survey
from orchestrator.store import tables
from orchestrator.store.claims import alive
from orchestrator.store.reasons import reason_of
from orchestrator.store.store import Store


def show_status(store: Store, console: Console) -> int:
    """Print where the store stands; exit status 0 where every cell of every grid that can be read has a result."""
    running = {trial["job"]: trial | {"host": sign["host"]} for sign in alive(store) for trial in sign["running"]}
    failures = {failure["job"]: failure for failure in store.table("failures", tables.FAILURES).to_pylist()}
    plans = stored_plans(store)
    for name, plan in plans:
        _show_plan(name, plan, running, failures, console)
    known = {key for _, plan in plans for key in plan.jobs}
    if others := [failure for key, failure in failures.items() if key not in known]:
        console.print("of grids that cannot be read here, or that ask for them no more:", highlight=False)
        for failure in others:
            _show_failure(failure, console)
    show_skipped(store.skipped, console)
    if store.unsealed:
        words = f"{len(store.unsealed):,} files were written before files had digests, so that damage to them may pass"
        console.print(f"{words}: signsym status {store.uri} --verify names them", highlight=False, soft_wrap=True)
    return FAILED if any(plan.missing for _, plan in plans) else COMPLETE


def stored_plans(store: Store) -> list[tuple[str, Plan]]:
    """The plans of the grids that were asked of the store, by name; one that cannot be read is named in `skipped`."""
    found = survey(store)
    plans = []
    for name in grid_names(store):
        try:
            plans.append((name, compile_plan(stored_grid(store, name), found.done_cells, found.done_models)))
        except FileNotFoundError:
            continue
        except (ValueError, OSError) as error:
            # A grid of another version of this program must not hide the others.
            store.skipped[f"grids/{name}.yaml"] = reason_of(error)
    return plans


def _show_plan(
    name: str,
    plan: Plan,
    running: Mapping[str, Mapping[str, Any]],
    failures: Mapping[str, Mapping[str, Any]],
    console: Console,
) -> None:
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
        _show_failure(failures[key], console)


def _show_failure(failure: Mapping[str, Any], console: Console) -> None:
    console.print(f"  failed: {failure['title']} on {failure['host']}", markup=False)
    console.print((failure["traceback"] or failure["error"]).rstrip(), highlight=False, markup=False)

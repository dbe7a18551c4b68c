"""One sweep from a grid file to its exit status: load, plan, schedule, report what failed."""

from __future__ import annotations

import dataclasses
import hashlib
import shlex
import signal
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from rich.console import Console

from orchestrator import provenance, tables
from orchestrator.cells import Grid
from orchestrator.estimate import estimate
from orchestrator.frontier import Retries
from orchestrator.heartbeat import Heartbeat
from orchestrator.plan import Job, Plan, compile_plan
from orchestrator.progress import View
from orchestrator.store import Store

#: Exit statuses: every cell has a result; some failed; the request was wrong; interrupted.
COMPLETE, FAILED, WRONG, INTERRUPTED = 0, 1, 2, 130
#: Marks a setting that was put over a stored grid.
SET_MARK = "# --set "


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """How a sweep is run; nothing here changes a number."""

    storage: str
    data_root: str
    address: str | None = None
    retry_failed: bool = False
    retries: Retries = dataclasses.field(default_factory=Retries)


def sweep(grid: Grid, settings: Settings, console: Console) -> int:
    """Run what the store lacks of `grid` and return the exit status."""
    store = Store(settings.storage)
    plan = compile_plan(grid, store.done_cells(), store.done_models())
    keep_grid(store, grid)
    failed = {name.removesuffix(".parquet") for name in store.names("failures", ".parquet")}
    if settings.retry_failed:
        store.forget_failures(plan.jobs)
        failed = set()
    jobs = _without(plan.jobs, failed)
    console.print(
        f"{grid.name}: {len(plan.cells)} cells, {len(plan.done)} done already, "
        f"{len(jobs)} jobs to run ({counted(jobs)}), results in {store.uri}",
        highlight=False,
    )
    if not jobs and not plan.missing:
        console.print("Nothing to do: every cell has a result.")
        return COMPLETE
    if jobs:
        # Imported here: a sweep with nothing to do, a plan and a status never wait for Ray.
        from orchestrator.schedule import ClusterLostError

        try:
            _run(jobs, store, settings, console)
        except (KeyboardInterrupt, ClusterLostError) as error:
            reason = str(error) or "Interrupted. What was finished is kept"
            console.print(f"\n{reason}; go on with:", highlight=False)
            console.print(f"  {command()}", highlight=False, soft_wrap=True)
            return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
    return _verdict(compile_plan(grid, store.done_cells(), store.done_models()), store, console)


def _run(jobs: Mapping[str, Job], store: Store, settings: Settings, console: Console) -> None:
    from orchestrator import schedule, work

    seconds = estimate(jobs.values(), store).seconds
    data_root = str(Path(settings.data_root).expanduser().resolve())
    versions = provenance.versions()
    context = work.Context(storage=store.uri, data_root=data_root, git=provenance.git(), versions=versions)

    def on_failure(failure: schedule.Failure) -> None:
        row: dict[str, Any] = {"job": failure.job.key, "title": failure.job.title, "attempt": failure.attempts}
        row |= {"error": failure.error, "traceback": failure.traceback, "host": failure.host}
        store.write_table("failures", failure.job.key, [row | {"failed_at": datetime.now(UTC)}], tables.FAILURES)

    view = View(jobs, seconds, console)
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with Heartbeat(store, lambda: list(view.running)):
            console.print("Starting Ray ...", highlight=False)
            schedule.connect(settings.address)
            # Once more, since Ray puts a handler of its own in its place that aborts the process.
            signal.signal(signal.SIGTERM, signal.default_int_handler)
            schedule.run(jobs, seconds, context, work.execute, on_failure, view, settings.retries)
    finally:
        signal.signal(signal.SIGTERM, before)
        schedule.disconnect()


def _verdict(plan: Plan, store: Store, console: Console) -> int:
    if not plan.missing:
        console.print(f"Complete: all {len(plan.cells)} cells have a result.", style="green", highlight=False)
        return COMPLETE
    failures = store.table("failures", tables.FAILURES).to_pylist()
    mine = [failure for failure in failures if failure["job"] in plan.jobs]
    console.print(f"{plan.missing} of {len(plan.cells)} cells have no result.", style="red", highlight=False)
    console.print("Failed jobs:", highlight=False)
    for failure in mine[:20]:
        console.print(f"  {failure['title']}: {failure['error']}", highlight=False, soft_wrap=True, markup=False)
    console.print(f"Tracebacks: signsym status {store.uri}. To retry them:", highlight=False, soft_wrap=True)
    console.print(f"  {command('--retry-failed')}", highlight=False, soft_wrap=True)
    return FAILED


def keep_grid(store: Store, grid: Grid) -> None:
    """Write what was asked to GRIDS/NAME-HASH.yaml, with its --set values as comments."""
    text = "".join(f"{SET_MARK}{setting}\n" for setting in grid.sets) + grid.text
    name = f"{grid.name}-{hashlib.sha256(text.encode()).hexdigest()[:12]}.yaml"
    if name not in store.names("grids", ".yaml"):
        store.write(f"grids/{name}", text.encode())


def counted(jobs: Mapping[str, Job]) -> str:
    """How many jobs of each kind: "1 pretrain, 10 finetune, 50 attack"."""
    kinds = [job.kind for job in jobs.values()]
    parts = [f"{kinds.count(kind)} {kind}" for kind in ("pretrain", "finetune", "attack") if kind in kinds]
    return ", ".join(parts) or "none"


def command(*more: str) -> str:
    """The command that was typed, with `more` added."""
    words = [word for word in sys.argv if word not in more]
    return shlex.join([*(["python"] if words[0].endswith(".py") else []), *words, *more])


def _without(jobs: Mapping[str, Job], failed: set[str]) -> dict[str, Job]:
    """`jobs` but those that failed for good in an earlier sweep, and those that depend on them."""
    left: dict[str, Job] = {}
    dropped = set(failed)
    for key, job in jobs.items():
        if key in dropped or job.parent in dropped:
            dropped.add(key)
        else:
            left[key] = job
    return left

"""One sweep from a grid file to its exit status: load, plan, schedule, report what failed."""

from __future__ import annotations

import contextlib
import importlib
from collections.abc import Mapping, Sequence, Set
from pathlib import Path

from rich.console import Console

from orchestrator.engine.prepare import PreparedSweep, prepare
from orchestrator.engine.resume_command import command
from orchestrator.engine.settings import Settings
from orchestrator.gridfile.stored import keep_grid
from orchestrator.jobs.graph import children_of, descendants
from orchestrator.jobs.job import STAGES, Job
from orchestrator.store import merged, tables
from orchestrator.store.apart import apart
from orchestrator.store.leftovers import remove_leftovers
from orchestrator.store.store import Store, StoreError

#: Exit statuses: every cell has a result; some failed; interrupted. A wrong request is 2.
COMPLETE, FAILED, INTERRUPTED = 0, 1, 130
#: Files that were not used and are named: a lost disk or folder may make it tens of thousands.
SKIPPED = 100


def sweep(path: Path, sets: Sequence[str], settings: Settings, console: Console) -> int:
    """Run what the store lacks of the grid at `path` and return the exit status."""
    store = Store(settings.storage)
    # In another process: reading a store takes memory that the process which drives Ray for days does not need.
    with apart(prepare, path, list(sets), settings.storage) as plan:
        if not store.names("grids", ".yaml"):
            # A new store lacks every cell. To load Ray takes two seconds, which pass meanwhile; where it cannot be
            # loaded, an error of the grid comes first.
            with contextlib.suppress(ImportError):
                importlib.import_module("orchestrator.engine.running")
        prepared = plan()
    show_skipped(prepared.skipped, console)
    if hidden := {"results", "outcomes", "models"} & {path.rstrip("/") for path in prepared.skipped}:
        raise StoreError(
            f"{store.uri}: {', '.join(sorted(hidden))} cannot be read, so it is unknown what is done; make it readable"
        )
    keep_grid(store, prepared.grid, prepared.text, prepared.sets)
    if removed := remove_leftovers(store, prepared.finished):
        console.print(f"removed {removed} files that killed sweeps had left behind")
    jobs, retried = to_run(prepared.jobs, store, settings.retry_failed)
    store.forget_failures(retried | prepared.overtaken)
    # Damaged files at these paths would make the jobs count as done, and so would the lists of merged files.
    paths = {job.results for job in jobs.values()}
    merged.forget_results(store, prepared.unsound & paths)
    out = len(prepared.jobs) - len(jobs)
    left_out = f", {out} left out that failed before or wait for one that did" if out else ""
    console.print(
        f"{prepared.grid}: {prepared.cells} cells, {prepared.done} done already, "
        f"{len(jobs)} jobs to run ({counted(jobs)}){left_out}, results in {store.uri}",
    )
    for notice in prepared.notices:
        console.print(notice, style="yellow", soft_wrap=True)
    modules, cells, models = prepared.edited
    if modules:
        console.print(
            f"{', '.join(modules)} (SIGNSYM_EXTENSIONS) was edited since {cells} of the cells and {models} of the "
            f"fine-tunes that are done were computed. They count all the same, and what is computed now stands beside "
            f"them; where the edit moves their numbers, sweep into another --storage.",
            style="red",
            soft_wrap=True,
        )
    if prepared.cells == prepared.done:
        console.print("Nothing to do: every cell has a result.")
        return COMPLETE
    if jobs:
        # Imported here: a sweep with nothing to do never waits for Ray.
        from orchestrator.engine.running import ClusterLostError, run_jobs

        try:
            run_jobs(jobs, prepared, store, settings, console)
        except (KeyboardInterrupt, ClusterLostError, StoreError) as error:
            reason = str(error) or "Interrupted"
            console.print(f"\n{reason}. Finished jobs are kept; go on with:", soft_wrap=True)
            console.print(f"  {command(joined=not isinstance(error, ClusterLostError))}", soft_wrap=True)
            return INTERRUPTED if isinstance(error, KeyboardInterrupt) else FAILED
    return _verdict(prepared, prepared.unsound - paths, store, console)


def _verdict(prepared: PreparedSweep, damaged: Set[str], store: Store, console: Console) -> int:
    """Say how the sweep ended. Files at the paths `damaged`, whose jobs could not run, are no results."""
    attacks = {job.results: job for job in prepared.jobs.values() if job.kind == "attack"}
    existing = merged.finished(store, list(attacks)) - damaged
    missing = sum(len(job.spec["points"]) for path, job in attacks.items() if path not in existing)
    if not missing:
        console.print(f"Complete: all {prepared.cells} cells have a result.", style="green")
        return COMPLETE
    failures = store.table("failures", tables.FAILURES).to_pylist()
    grid_failures = [failure for failure in failures if failure["job"] in prepared.jobs]
    console.print(f"{missing} of {prepared.cells} cells have no result.", style="red")
    console.print("Failed jobs:")
    for failure in grid_failures[:20]:
        console.print(f"  {failure['title']}: {failure['error']}", soft_wrap=True)
    if len(grid_failures) > 20:
        console.print(f"  ... and {len(grid_failures) - 20} more")
    console.print(f"Tracebacks: signsym status {store.word}; to retry them:", soft_wrap=True)
    console.print(f"  {command('--retry-failed')}", soft_wrap=True)
    return FAILED


def counted(jobs: Mapping[str, Job]) -> str:
    """How many jobs of each kind: "1 pretrain, 10 finetune, 50 attack"."""
    kinds = [job.kind for job in jobs.values()]
    counts = [f"{kinds.count(kind)} {kind}" for kind in STAGES if kind in kinds]
    return ", ".join(counts) or "none"


def show_skipped(skipped: Mapping[str, str], console: Console, most: int = SKIPPED) -> None:
    """Print the files of a store that were not used, each with the reason, and of more than `most` how many others."""
    for name, reason in sorted(skipped.items())[:most]:
        console.print(f"skipped {name}: {reason}", soft_wrap=True)
    if len(skipped) > most:
        words = f"skipped {len(skipped) - most:,} files more; signsym status --verify names all"
        console.print(words, soft_wrap=True)


def to_run(jobs: Mapping[str, Job], store: Store, retry_failed: bool) -> tuple[dict[str, Job], Set[str]]:
    """Those of the jobs that a store lacks that a sweep runs, and the failed ones that it tries again.

    What failed for good in an earlier sweep is left out with what waits for it, unless it is to be tried again.
    """
    failed = {name.removesuffix(".parquet") for name in store.names("failures", ".parquet")}
    retried = failed & (set(jobs) if retry_failed else _orphans(jobs, failed))
    return _without(jobs, failed - retried), retried


def _orphans(jobs: Mapping[str, Job], failed: Set[str]) -> set[str]:
    """The failed jobs whose model will be trained again: the model that they failed on no longer exists."""
    return {key for key in failed if key in jobs and (set(jobs[key].parents) & set(jobs)) - failed}


def _without(jobs: Mapping[str, Job], failed: set[str]) -> dict[str, Job]:
    """`jobs` without those that failed for good in an earlier sweep, and without their descendants."""
    dropped = failed | descendants(children_of(jobs), failed)
    return {key: job for key, job in jobs.items() if key not in dropped}

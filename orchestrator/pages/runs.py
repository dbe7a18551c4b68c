"""The jobs of the store's sweeps: which failed and why, which run, and what each took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Facts, Page, Table, Value, Words
from orchestrator.pages.columns import filled, numbers, texts
from orchestrator.pages.context import PageContext
from orchestrator.results.runs import Run

#: Rows of the table, causes of failures that are shown with a traceback, and jobs that are named for each, at most.
MOST, MOST_CAUSES, MOST_NAMES = 20_000, 20, 5
_STATES = ("failed", "running", "waiting", "interrupted", "finished")
_STAGES = {"pretrain": "pre-trainings", "finetune": "fine-tunes", "attack": "attacks"}
_COLUMNS = (
    *texts(title="job", state="state"),
    *numbers(seconds="seconds"),
    *texts(host="host"),
    *numbers(gpu="share of a GPU", peak="tensors on the GPU at most, GB", total="memory of the GPU, GB"),
    *numbers(attempts="attempts"),
    *texts(began="last start (UTC)", error="last error", note="note", store="store"),
)


def page(context: PageContext) -> Page:
    """Failures by their cause, the number of jobs in each state, and a row for each job."""
    rows, unknown = _chosen(context)
    if not rows:
        sentence = "The store has no log of a job: its sweeps ran elsewhere, or none has begun one."
        return context.finished("Runs", [Words(title="No job yet", sentences=[sentence], tone="todo")])
    failed = [(store, run) for store, run in rows if run.state == "failed"]
    blocks: list[Block] = [*_causes([run for _, run in failed])]
    blocks += _retry(context, {name for _, run in failed for name in run.names}) if failed else []
    blocks.append(Facts(title="Jobs that were started", facts=_counts([run for _, run in rows])))
    # Of those that began at once, in one order whenever the page is made.
    rows.sort(key=lambda row: (row[1].began, row[0], row[1].job), reverse=True)
    rows.sort(key=lambda row: _STATES.index(row[1].state))
    note = "A job that waits failed and is tried again; one that was interrupted is run by the next sweep."
    if unknown:
        # Of an attack of which some cells were done before the key alone does not tell its grid.
        logged = f"{style.counted(unknown, 'attack')} that an older version of signsym logged"
        note += f" {logged} may be of this grid as well: its logs do not say what an attack does."
    if len(rows) > MOST:
        note += f" The first {MOST:,} of {len(rows):,} are here."
    table = [_row(store, run) for store, run in rows[:MOST]]
    blocks.append(Table(name="runs", title="Jobs", columns=filled(_COLUMNS, table), rows=table, note=note))
    return context.finished("Runs", blocks)


def _chosen(context: PageContext) -> tuple[list[tuple[str, Run]], int]:
    """The runs of the stores and of the grid that the view chooses, each with the name of its store, and the number of
    attacks that may be of the grid.
    """
    view = context.view
    rows = [(store, run) for store, runs in context.data.runs(view.store).items() for run in runs]
    if not view.grid:
        return rows, 0
    planned = {name for cells in context.status.grids.get(view.grid, ()) for name in cells.names}
    chosen = [(store, run) for store, run in rows if run.names & planned]
    known = {cells.job for cells in context.status.planned_cells()}
    return chosen, sum(run.kind == "attack" and not run.work and run.job not in known for _, run in rows)


def _causes(failed: Sequence[Run]) -> list[Block]:
    """What failed, a block for each error, the most frequent first."""
    by_error: dict[str, list[Run]] = {}
    for run in failed:
        by_error.setdefault(run.error, []).append(run)
    causes = sorted(by_error.items(), key=lambda cause: -len(cause[1]))
    blocks: list[Block] = []
    for error, runs in causes[:MOST_CAUSES]:
        names = "; ".join(run.title for run in runs[:MOST_NAMES])
        more = f"; and {len(runs) - MOST_NAMES:,} more, in the table" if len(runs) > MOST_NAMES else ""
        last = runs[-1]
        where = f"The last attempt of “{last.title}”{f' was on {last.host}' if last.host else ''}:"
        title = f"{style.counted(len(runs), 'job')} failed: {error}"
        traceback = last.traceback.rstrip() or error
        blocks.append(Words(title=title, sentences=[f"{names}{more}.", where], tone="warning", commands=[traceback]))
    if len(causes) > MOST_CAUSES:
        rest = f"{len(causes) - MOST_CAUSES:,} more errors are in the table."
        blocks.append(Words(title="More failures", sentences=[rest], tone="warning"))
    return blocks


def _retry(context: PageContext, jobs: set[str]) -> list[Block]:
    """The command that tries failed jobs again, by their names, for each stored grid that plans one of them."""
    commands = context.data.retry_commands(jobs)
    end = ", or, in the folder where it was started and with its other options, such as --data-root:"
    sentence = "Mend the cause, then repeat the command of the sweep with --retry-failed at its end"
    sentences = [f"{sentence}{end if commands else '.'}"]
    return [Words(title="To try them again", sentences=sentences, tone="todo", commands=commands)]


def _counts(runs: Sequence[Run]) -> list[tuple[str, str]]:
    """For each kind of job how many are in each state."""
    counts: dict[str, Counter[str]] = {}
    for run in runs:
        counts.setdefault(_STAGES.get(run.kind, "others"), Counter())[run.state] += 1
    order = [*_STAGES.values(), "others"]
    return [
        (stage, ", ".join(f"{counts[stage][state]:,} {state}" for state in _STATES if counts[stage][state]))
        for stage in sorted(counts, key=order.index)
    ]


def _row(store: str, run: Run) -> dict[str, Value]:
    peak, total = (None if size is None else round(size / 1e9, 2) for size in (run.gpu_peak, run.gpu_total))
    return {
        "title": run.title,
        "state": run.state,
        "seconds": None if run.seconds is None else round(run.seconds, 1),
        "host": run.host,
        "gpu": run.gpu or None,
        "peak": peak,
        "total": total,
        "attempts": run.attempts,
        "began": run.began[:19].replace("T", " "),
        "error": run.error,
        "note": run.note,
        "store": store,
    }

"""What became of the jobs of a store's sweeps: from their event logs, their failures and their heartbeats."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator.store import tables
from orchestrator.store.claims import alive
from orchestrator.store.store import Store

RunState = Literal["failed", "running", "waiting", "interrupted", "finished"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """A job that was started at least once, as it is now."""

    job: str
    title: str
    #: What it does, see `keys.work`; "" in a log of an older version.
    work: str = ""
    #: waiting: for another attempt after a failure; interrupted: its sweep ended before it did.
    state: RunState = "interrupted"
    #: When it was started last, and when something was last recorded of it, ISO 8601 in UTC; how often it was started.
    began: str = ""
    recorded: str = ""
    attempts: int = 0
    #: Seconds that it took, or has taken so far.
    seconds: float | None = None
    #: Host and share of a GPU of the last attempt; bytes of its tensors on the GPU at most, and of the GPU.
    host: str = ""
    gpu: float | None = None
    gpu_peak: float | None = None
    gpu_total: float | None = None
    #: The last note that it left, such as that its micro-batch was halved.
    note: str = ""
    #: Why its last attempt failed, and the whole traceback where it failed for good.
    error: str = ""
    traceback: str = ""

    @property
    def kind(self) -> str:
        """pretrain, finetune or attack."""
        return self.title.partition(" ")[0]

    @property
    def names(self) -> frozenset[str]:
        """What it is known by: its key, and what it does."""
        return frozenset({self.job, self.work} - {""})


def runs_of(store: Store) -> list[Run]:
    """The jobs of a store's sweeps. A line of a log that cannot be read, such as a killed sweep's last, is left out."""
    runs: dict[str, Run] = {}
    for event in _events(store):
        if job := _text(event.get("job")):
            before = runs.get(job, Run(job=job, title=_text(event.get("title"))))
            work = _text(event.get("work")) or before.work
            runs[job] = dataclasses.replace(_after(before, event), work=work, recorded=event["at"])
    for failure in store.table("failures", tables.FAILURES).to_pylist():
        values: dict[str, Any] = {name: failure[name] or "" for name in ("title", "host", "error", "traceback")}
        run = runs.get(failure["job"], Run(job=failure["job"], title="", attempts=failure["attempt"] or 0))
        runs[run.job] = dataclasses.replace(run, state="failed", work=failure["work"] or run.work, **values)
    now = _now(runs, alive(store))
    return [run for run in now.values() if not _overtaken(run, now)]


def _overtaken(run: Run, runs: Mapping[str, Run]) -> bool:
    """Whether a run that failed, of which the store has no failure any more, was followed by one of the same attack."""
    if run.state not in ("waiting", "interrupted") or not run.error or not run.work:
        return False
    return any(other.work == run.work and other.began > run.began for other in runs.values())


def _after(run: Run, event: Mapping[str, Any]) -> Run:
    """A run after one more event of its job."""
    name = event["event"]
    if name == "job_started":
        begun = Run(job=run.job, title=run.title, state="running", began=event["at"], attempts=run.attempts + 1)
        return dataclasses.replace(begun, gpu=_number(event.get("gpu")))
    if name == "job_finished":
        numbers: dict[str, Any] = {name: _number(event.get(name)) for name in ("seconds", "gpu_peak", "gpu_total")}
        return dataclasses.replace(run, state="finished", host=_text(event.get("host")), error="", **numbers)
    if name == "job_failed":
        # What failed for good has a row among the failures, until it is to be tried again.
        return dataclasses.replace(run, state="waiting", error=_text(event.get("error")))
    return dataclasses.replace(run, note=_text(event.get("words"))) if name == "job_said" else run


def _now(runs: Mapping[str, Run], sweeps: list[dict[str, Any]]) -> dict[str, Run]:
    """The runs with what the heartbeats of the living sweeps say of them; a job that no sweep has was interrupted."""
    beats = {trial["job"]: (_iso(sweep["at"]), trial) for sweep in sweeps for trial in sweep["running"]}
    last = max((_iso(sweep["at"]) for sweep in sweeps), default="")
    now = dict(runs)
    for job, (at, trial) in beats.items():
        run = runs.get(job, Run(job=job, title=trial["title"]))
        # What was recorded since the heartbeat is newer.
        if run.recorded < at:
            numbers: dict[str, Any] = {"seconds": _number(trial.get("seconds")), "gpu": _number(trial.get("gpu"))}
            work = _text(trial.get("work")) or run.work
            now[job] = dataclasses.replace(run, state="running", work=work, **numbers)
    for job, run in runs.items():
        gone = run.state == "running" and job not in beats and not (last and run.recorded > last)
        if gone or (run.state == "waiting" and not sweeps):
            now[job] = dataclasses.replace(run, state="interrupted")
    return now


def _events(store: Store) -> list[dict[str, Any]]:
    """The events of all sweeps in the order of their times: two sweeps may write to one store at once."""
    events = []
    for name in store.names("events", ".jsonl"):
        for line in store.read(f"events/{name}").splitlines():
            try:
                event = json.loads(line)
            except ValueError:
                continue
            if isinstance(event, dict) and _text(event.get("event")) and _text(event.get("at")):
                events.append(event)
    return sorted(events, key=lambda event: str(event["at"]))


def _iso(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="milliseconds")


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _number(value: object) -> float | None:
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) else None

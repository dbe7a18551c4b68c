"""The display of a running sweep: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Protocol

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from orchestrator.engine.time_left import TimeLeft
from orchestrator.jobs import keys
from orchestrator.jobs.graph import children_of, descendants
from orchestrator.jobs.job import Job

#: Seconds between two plain lines.
QUIET = 5.0


class Watcher(Protocol):
    """Receives the events of jobs, by their keys."""

    def started(self, key: str, gpu: float) -> None:
        """A trial of the job began on `gpu` GPUs, a share below 1 or a whole number."""

    def finished(self, key: str, report: Mapping[str, Any]) -> None:
        """The job is done; `report` is its trial's: seconds, host, gpu_peak and gpu_total in bytes.

        Where the worker died after the job was done, `death` has the reason.
        """

    def failed(self, key: str, error: str, retried: bool) -> None:
        """The job failed, and is retried or has failed for good."""

    def said(self, key: str, words: str) -> None:
        """The job's trial has a note for people, such as how it handled damaged data."""

    def elsewhere(self, key: str) -> None:
        """Another sweep runs the job."""

    def settled(self, key: str, done: bool) -> None:
        """The job is done in another sweep, or has failed there for good."""


class ProgressDisplay:
    """Shows done / total, the running trials, the last failures and an estimate of the time left."""

    def __init__(self, jobs: Mapping[str, Job], seconds: Mapping[str, float], console: Console | None = None) -> None:
        self.console = console or Console()
        self.jobs, self.seconds, self.time_left = jobs, seconds, TimeLeft(jobs, seconds)
        self.running: dict[str, float] = {}
        #: GPUs of each running trial, the memory that jobs of its kind needed, and jobs that other sweeps run.
        self.gpu: dict[str, float] = {}
        self.memory: dict[tuple[str, ...], float] = {}
        self.away: set[str] = set()
        self.totals = Counter(job.kind for job in jobs.values())
        self.done: Counter[str] = Counter()
        self.failures: list[str] = []
        #: Jobs that failed for good, here or in another sweep, and those that wait for one of them for ever.
        self.failed_jobs: set[str] = set()
        self.blocked: set[str] = set()
        self._children = children_of(jobs)
        self._said: set[str] = set()
        self._started = time.monotonic()
        #: When the last jobs ended.
        self._ends: deque[float] = deque(maxlen=50)
        self._last_line = -QUIET
        self._live = Live(console=self.console, refresh_per_second=4, transient=True, get_renderable=self._renderable)

    def __enter__(self) -> ProgressDisplay:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        # Where Ray was lost, nothing reports the end of its trials.
        self.running.clear()
        if self.console.is_terminal:
            self._live.stop()
        else:
            self._line()

    def started(self, key: str, gpu: float = 0.0) -> None:
        """A trial of the job began."""
        self.away.discard(key)
        self.running[key] = time.monotonic()
        self.gpu[key] = gpu
        self.time_left.started(len(self.running))

    def finished(self, key: str, report: Mapping[str, Any] = MappingProxyType({})) -> None:
        """The job is done."""
        job = self.jobs[key]
        self.time_left.removed(key)
        began = self.running.pop(key, None)
        if began is not None and sum(self.done.values()) >= self.time_left.slots:
            self.time_left.measured(key, time.monotonic() - began)
        if "gpu_peak" in report:
            self.memory[job.group] = max(self.memory.get(job.group, 0.0), report["gpu_peak"] / 2**30)
        self.done[job.kind] += 1
        self._ends.append(time.monotonic())
        self._tick()

    def failed(self, key: str, error: str, retried: bool) -> None:
        """The job failed, and is retried or has failed for good."""
        self.running.pop(key, None)
        words = "failed, will be tried again" if retried else "failed for good"
        self.failures.append(f"{self.jobs[key].title}: {words}: {error}")
        # Text, not markup: errors may contain brackets.
        self.console.print(Text.assemble((words, "red"), f": {self.jobs[key].title}: {error}"), soft_wrap=True)
        if not retried:
            self._give_up(key)

    def said(self, key: str, words: str) -> None:
        """Print a note, once, however many trials report it."""
        if words not in self._said:
            self._said.add(words)
            self.console.print(Text.assemble(("note", "yellow"), f": {words}"), soft_wrap=True)

    def elsewhere(self, key: str) -> None:
        """Another sweep runs the job."""
        self.away.add(key)

    def settled(self, key: str, done: bool) -> None:
        """Another sweep has ended the job."""
        self.away.discard(key)
        if done:
            self.time_left.removed(key)
            self.done[self.jobs[key].kind] += 1
        else:
            self.failures.append(f"{self.jobs[key].title}: failed in another sweep")
            self._give_up(key)
        self._tick()

    def _give_up(self, key: str) -> None:
        """The job failed for good: what waits for it is not left either."""
        self.failed_jobs.add(key)
        waiting = descendants(self._children, [key]) - self.blocked
        self.blocked |= waiting
        for gone in (key, *waiting):
            self.time_left.removed(gone)

    def trials(self) -> list[dict[str, Any]]:
        """The running trials, for `signsym status` in another terminal."""
        now = time.monotonic()
        return [
            {"job": key, "work": keys.work(key, self.jobs[key].spec), "title": self.jobs[key].title}
            | {"seconds": round(now - since, 1), "gpu": self.gpu.get(key, 0.0)}
            for key, since in list(self.running.items())
        ]

    @property
    def rate(self) -> float | None:
        """Jobs a minute over the last ones that ended; None before two have."""
        if len(self._ends) < 2:
            return None
        return 60 * (len(self._ends) - 1) / max(1e-9, time.monotonic() - self._ends[0])

    def _tick(self) -> None:
        if not self.console.is_terminal and time.monotonic() - self._last_line >= QUIET:
            self._line()

    def _line(self) -> None:
        self._last_line = time.monotonic()
        counts = [f"{kind} {self.done[kind]}/{total}" for kind, total in self.totals.items()]
        elapsed = f"{time.monotonic() - self._started:.0f} s"
        eta = self.time_left.seconds
        done, total = sum(self.done.values()), len(self.jobs)
        words = ", no estimate of the time left yet" if done + len(self.failed_jobs | self.blocked) < total else ""
        words = f", about {duration(eta)} left" if eta else words
        self.console.print(f"{done}/{total} jobs ({', '.join(counts)}){self._lost()} in {elapsed}{words}")

    def _lost(self) -> str:
        """ ", 1 failed, 40 blocked by it"; "" where no job has failed for good."""
        blocked = f", {len(self.blocked)} blocked" if self.blocked else ""
        return f", {len(self.failed_jobs)} failed{blocked}" if self.failed_jobs else ""

    def _renderable(self) -> Group:
        bars = Progress(
            TextColumn("{task.description:>9}"), BarColumn(32), TextColumn("{task.completed:.0f} of {task.total:.0f}")
        )
        for kind, total in self.totals.items():
            bars.add_task(kind, total=total, completed=self.done[kind])
        now = time.monotonic()
        table = Table(box=None, padding=(0, 2))
        table.add_column("running trial")
        on_gpu = any(self.gpu.get(key) for key in list(self.running))
        for column in (*(("GPU share", "memory") if on_gpu else ()), "seconds"):
            table.add_column(column, justify="right", no_wrap=True)
        for key, since in list(self.running.items())[:12]:
            share, memory = self.gpu.get(key, 0.0), self.memory.get(self.jobs[key].group)
            cells = (f"{share:g}" if share else "CPU", "?" if memory is None else f"{memory:.1f} GiB") if on_gpu else ()
            table.add_row(self.jobs[key].title, *cells, f"{now - since:.0f}")
        if len(self.running) > 12:
            table.add_row(f"... and {len(self.running) - 12} more")
        left = self.time_left.seconds
        eta = "no estimate yet" if left is None else duration(left)
        facts = [f"{duration(now - self._started)} passed, time left: {eta}{self._lost()}"]
        if self.rate is not None:
            facts.append(f"{self.rate:.3g} jobs a minute")
        if self.away:
            facts.append(f"{len(self.away)} jobs run in another sweep")
        last = [Text(failure, style="red", overflow="ellipsis", no_wrap=True) for failure in self.failures[-3:]]
        return Group(bars, table, ", ".join(facts), *last)


def duration(seconds: float) -> str:
    """ "3 h 20 min", "4 min 5 s", "12 s"."""
    total = round(seconds)
    hours, minutes = total // 3600, total // 60 % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {total % 60} s" if minutes else f"{total} s"

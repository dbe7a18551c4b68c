"""Which jobs are waiting, ready, running, done, failed or blocked: a pure state machine, without Ray or a clock.

Events go in (`started`, `finished`, `failed`), decisions come out (`next`). Times are seconds of the caller's clock.
"""

from __future__ import annotations

import dataclasses
import heapq
from collections import Counter
from collections.abc import Mapping
from typing import Literal

from orchestrator.plan import Job

State = Literal["waiting", "ready", "running", "done", "failed", "blocked"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retries:
    """How a failed job is tried again: `attempts` in all, `backoff` seconds before the second, doubled each time."""

    attempts: int = 3
    backoff: float = 1.0


class Frontier:
    """The state of every job of a plan.

    Of the ready jobs the one with the longest remaining chain of estimated seconds comes first, so that the tail of
    a sweep is short; equals come in the order of the plan.
    """

    def __init__(self, jobs: Mapping[str, Job], estimates: Mapping[str, float], retries: Retries) -> None:
        self.jobs, self.retries = jobs, retries
        self.children: dict[str, list[str]] = {}
        for job in jobs.values():
            if job.parent is not None and job.parent in jobs:
                self.children.setdefault(job.parent, []).append(job.key)
        self.state: dict[str, State] = {}
        #: How many jobs are in each state, kept up to date by `_set`.
        self.counts: Counter[State] = Counter()
        self.attempts: Counter[str] = Counter()
        self._order = {key: place for place, key in enumerate(jobs)}
        self._chain: dict[str, float] = {}
        for key in reversed(list(jobs)):
            longest = max((self._chain[child] for child in self.children.get(key, [])), default=0.0)
            self._chain[key] = estimates[key] + longest
        self._ready: list[tuple[float, int, str]] = []
        #: Failed jobs that wait for their next attempt: (time, place, key).
        self._delayed: list[tuple[float, int, str]] = []
        for job in jobs.values():
            if job.parent in jobs:
                self._set(job.key, "waiting")
            else:
                self._make_ready(job.key)

    def next(self, now: float) -> Job | None:
        """The job to start now, or None where none is ready yet. The job counts as running from here on."""
        while self._delayed and self._delayed[0][0] <= now:
            self._make_ready(heapq.heappop(self._delayed)[2])
        if not self._ready:
            return None
        key = heapq.heappop(self._ready)[2]
        self._set(key, "running")
        self.attempts[key] += 1
        return self.jobs[key]

    def finished(self, key: str) -> None:
        """The job is done: its children become ready."""
        self._set(key, "done")
        for child in self.children.get(key, []):
            self._make_ready(child)

    def failed(self, key: str, now: float) -> bool:
        """The job failed. True where it will be tried again; otherwise its descendants are blocked."""
        attempts = self.attempts[key]
        if attempts < self.retries.attempts:
            self._set(key, "waiting")
            delay = self.retries.backoff * 2 ** (attempts - 1)
            heapq.heappush(self._delayed, (now + delay, self._order[key], key))
            return True
        self._set(key, "failed")
        blocked = list(self.children.get(key, []))
        while blocked:
            child = blocked.pop()
            self._set(child, "blocked")
            blocked += self.children.get(child, [])
        return False

    @property
    def exhausted(self) -> bool:
        """True when nothing runs and nothing will: every job is done, failed or blocked."""
        return not any(self.counts[state] for state in ("waiting", "ready", "running"))

    def _make_ready(self, key: str) -> None:
        self._set(key, "ready")
        heapq.heappush(self._ready, (-self._chain[key], self._order[key], key))

    def _set(self, key: str, state: State) -> None:
        if key in self.state:
            self.counts[self.state[key]] -= 1
        self.state[key] = state
        self.counts[state] += 1

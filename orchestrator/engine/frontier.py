"""Which jobs are waiting, ready, running, done, failed or blocked: a pure state machine, without Ray or a clock.

Events go in (`finished`, `failed`, `elsewhere`), decisions come out (`next`). Times are seconds of the caller's clock.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterator, Mapping
from typing import Literal

from orchestrator.engine.retries import Cause, Retries
from orchestrator.jobs.graph import children_of, descendants
from orchestrator.jobs.job import Job

#: "elsewhere": another sweep on the same store has claimed the job.
State = Literal["waiting", "ready", "running", "elsewhere", "done", "failed", "blocked"]


class Frontier:
    """The state of every job of a plan.

    While the remaining work takes longer than the longest chain of jobs, the attacks on models that are ready come
    first, so that results come early and loaded models are reused. When the longest chain decides the end of the
    sweep, the job with the longest remaining chain of estimated seconds comes first. Equal jobs keep the plan's order.
    """

    def __init__(self, jobs: Mapping[str, Job], estimates: Mapping[str, float], retries: Retries) -> None:
        self.jobs, self.estimates, self.retries = jobs, dict(estimates), retries
        self.children = children_of(jobs)
        #: For each waiting job, its parents that are not done.
        self.needs: dict[str, set[str]] = {}
        for job in jobs.values():
            if parents := {parent for parent in job.parents if parent in jobs}:
                self.needs[job.key] = parents
        self.state: dict[str, State] = {}
        #: How many jobs are in each state, kept up to date by `_set`.
        self.counts: Counter[State] = Counter()
        self.failures: dict[str, Counter[Cause]] = {}
        #: Keys of the jobs that other sweeps have claimed.
        self.claimed: set[str] = set()
        #: Estimated seconds of the jobs that wait, are ready or run elsewhere.
        self.left = sum(estimates[key] for key in jobs)
        self._order = {key: place for place, key in enumerate(jobs)}
        self._chain: dict[str, float] = {}
        for key in reversed(list(jobs)):
            longest = max((self._chain[child] for child in self.children.get(key, [])), default=0.0)
            self._chain[key] = estimates[key] + longest
        #: Both heaps hold every ready job, and some that are no longer ready; the key is the last item of an entry.
        self._by_chain: list[tuple[float, int, str]] = []
        self._by_stage: list[tuple[bool, float, int, str]] = []
        #: Failed jobs that wait for their next attempt: (time, position in the plan, key).
        self._delayed: list[tuple[float, int, str]] = []
        for job in jobs.values():
            if job.key in self.needs:
                self._set(job.key, "waiting")
            else:
                self._make_ready(job.key)

    def next(self, now: float, slots: int) -> Job | None:
        """The job to start now, which counts as running from now on; None where no job is ready."""
        while self._delayed and self._delayed[0][0] <= now:
            key = heapq.heappop(self._delayed)[2]
            if self.state[key] == "waiting":
                self._make_ready(key)
        while self._by_chain and self.state[self._by_chain[0][-1]] != "ready":
            heapq.heappop(self._by_chain)
        while self._by_stage and self.state[self._by_stage[0][-1]] != "ready":
            heapq.heappop(self._by_stage)
        if not self._by_chain:
            return None
        chains_decide = 2 * -self._by_chain[0][0] * slots > self.left
        key = heapq.heappop(self._by_chain)[-1] if chains_decide else heapq.heappop(self._by_stage)[-1]
        self._set(key, "running")
        self.left -= self.estimates[key]
        return self.jobs[key]

    def ahead(self, count: int) -> list[str]:
        """Up to `count` keys of ready jobs that are likely to come next."""
        return [entry[-1] for entry in heapq.nsmallest(count, self._by_stage) if self.state[entry[-1]] == "ready"]

    def finished(self, key: str) -> None:
        """The job is done, in this sweep or another: children without other missing parents become ready."""
        self._leave(key)
        self._set(key, "done")
        for child in self.children.get(key, []):
            self.needs[child].discard(key)
            if self.state[child] == "waiting" and not self.needs[child]:
                self._make_ready(child)

    def failed(self, key: str, now: float, cause: Cause = "error", machines: int = 1) -> bool:
        """The job failed on one of so many machines. True where it will be retried; else it has failed for good."""
        counts = self.failures.setdefault(key, Counter())
        counts[cause] += 1
        if counts[cause] < self.retries.allowed(cause, machines):
            self._set(key, "waiting")
            self.left += self.estimates[key]
            delay = min(self.retries.backoff * 2 ** (self.attempts(key) - 1), self.retries.longest)
            heapq.heappush(self._delayed, (now + delay, self._order[key], key))
            return True
        self.give_up(key)
        return False

    def give_up(self, key: str) -> None:
        """The job has failed for good, in this sweep or another: its descendants are blocked."""
        self._leave(key)
        self._set(key, "failed")
        for child in descendants(self.children, [key]):
            if self.state[child] != "blocked":
                self._leave(child)
                self._set(child, "blocked")

    def elsewhere(self, key: str) -> None:
        """Another sweep has claimed the job, which was ready or about to start."""
        if self.state[key] == "running":
            self.left += self.estimates[key]
        self._set(key, "elsewhere")
        self.claimed.add(key)

    def released(self, key: str) -> None:
        """The job can start again: another sweep has dropped its claim, or it was about to start here and did not."""
        if self.state[key] == "running":
            self.left += self.estimates[key]
        self.claimed.discard(key)
        self._make_ready(key)

    def interrupted(self) -> None:
        """All trials have ended, through no fault of a job: running jobs become ready."""
        for key in [key for key, state in self.state.items() if state == "running"]:
            self.released(key)

    def attempts(self, key: str) -> int:
        """How often the job has failed."""
        return sum(self.failures.get(key, Counter[Cause]()).values())

    def halvings(self, key: str) -> int:
        """How often the job ran out of memory."""
        return self.failures.get(key, Counter[Cause]())["memory"]

    @property
    def exhausted(self) -> bool:
        """True when every job is done, failed or blocked."""
        return not any(self.counts[state] for state in ("waiting", "ready", "running", "elsewhere"))

    def startable(self) -> Iterator[Job]:
        """The jobs that are running or ready."""
        return (job for key, job in self.jobs.items() if self.state[key] in ("running", "ready"))

    def first_waiting(self) -> Job:
        """A job that waits for another, the first of the plan."""
        return next(job for key, job in self.jobs.items() if self.state[key] == "waiting")

    def _leave(self, key: str) -> None:
        """Update `left` and `claimed` for a job that has ended, perhaps without running in this sweep."""
        if self.state[key] in ("waiting", "ready", "elsewhere"):
            self.left -= self.estimates[key]
        self.claimed.discard(key)

    def _make_ready(self, key: str) -> None:
        self._set(key, "ready")
        place, leads_on = self._order[key], key in self.children
        heapq.heappush(self._by_chain, (-self._chain[key], place, key))
        # A job without children gives results at once; the attacks on one model are adjacent in the plan.
        heapq.heappush(self._by_stage, (leads_on, -self._chain[key] if leads_on else 0.0, place, key))

    def _set(self, key: str, state: State) -> None:
        if key in self.state:
            self.counts[self.state[key]] -= 1
        self.state[key] = state
        self.counts[state] += 1

"""The frontier's jobs, on a store where other sweeps may run the same: each job is claimed before it starts."""

from __future__ import annotations

import time
from collections.abc import Sequence

from orchestrator.engine.frontier import Frontier
from orchestrator.engine.progress import Watcher
from orchestrator.engine.retries import Cause
from orchestrator.jobs.job import Job
from orchestrator.store import merged
from orchestrator.store.claims import Claims
from orchestrator.store.store import Store

#: Seconds between two reads of the claims of other sweeps.
LOOK = 2.0
#: Seconds of work for each slot that are claimed in advance, and at most this many jobs.
AHEAD, MOST_AHEAD = 2.0, 32


class SharedJobs:
    """Gives the next job that no other sweep runs, and follows those that others do."""

    def __init__(self, frontier: Frontier, claims: Claims, store: Store, watchers: Sequence[Watcher]) -> None:
        self.frontier, self.claims, self.store, self.watchers = frontier, claims, store, watchers
        self._looked = float("-inf")

    def next(self, slots: int) -> Job | None:
        """Claim and return the next job that is not done; None where no job is ready."""
        self._look()
        while (job := self.frontier.next(time.monotonic(), slots)) is not None:
            if self.claims.holds(job.key):
                return job
            # Short jobs are claimed in batches; a long job singly, so that another sweep can claim the next one.
            in_advance = int(AHEAD * slots / max(self.frontier.estimates[job.key], 0.01))
            keys = [job.key, *self.frontier.ahead(min(in_advance, MOST_AHEAD))]
            claimed = self.claims.take(keys)
            for key in keys:
                if key not in claimed:
                    self.frontier.elsewhere(key)
                    for watcher in self.watchers:
                        watcher.elsewhere(key)
            # Another sweep may have finished some of them since the plan was compiled.
            self._settle(claimed)
            if self.frontier.state[job.key] == "running":
                return job
        return None

    def finished(self, key: str) -> None:
        """A trial has done the job."""
        self.frontier.finished(key)
        self.claims.drop(key)

    def failed(self, key: str, cause: Cause) -> bool:
        """A trial of the job failed. True where it will be retried; otherwise it has failed for good."""
        retried = self.frontier.failed(key, time.monotonic(), cause)
        if not retried:
            self.claims.drop(key)
        return retried

    def is_done(self, key: str) -> bool:
        """Whether the store has the job's results."""
        path = self.frontier.jobs[key].results
        try:
            return path in merged.finished(self.store, [path])
        except OSError:
            # The job's next attempt will report the store's error.
            return False

    def _look(self) -> None:
        """Record the end of jobs that other sweeps had claimed, and make those ready again that they did not finish."""
        if not self.frontier.claimed or time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        for key in self._settle(self.frontier.claimed - self.claims.claimed_elsewhere()):
            self.frontier.released(key)

    def _settle(self, keys: set[str]) -> set[str]:
        """Record those of `keys` that are done or failed in the store; returns the rest."""
        results = {self.frontier.jobs[key].results: key for key in keys}
        failures = {f"failures/{key}.parquet": key for key in keys}
        for path in [*merged.finished(self.store, list(results)), *self.store.exists(list(failures))]:
            key = results.get(path) or failures[path]
            if path in results:
                self.frontier.finished(key)
            elif self.frontier.state[key] != "done":
                self.frontier.give_up(key)
            for watcher in self.watchers:
                watcher.settled(key)
            self.claims.drop(key)
        return {key for key in keys if self.frontier.state[key] not in ("done", "failed")}

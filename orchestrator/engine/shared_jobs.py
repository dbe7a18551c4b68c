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
#: Seconds for which the store may fail to answer before the sweep stops. Running jobs go on meanwhile.
PATIENCE = 60.0


class SharedJobs:
    """Gives the next job that no other sweep runs, and follows those that others do."""

    def __init__(self, frontier: Frontier, claims: Claims, store: Store, watchers: Sequence[Watcher]) -> None:
        self.frontier, self.claims, self.store, self.watchers = frontier, claims, store, watchers
        self._looked = float("-inf")
        #: Since when the store has not answered, and when it was last called; None: it did.
        self._silent: tuple[float, float] | None = None

    def next(self, slots: int) -> Job | None:
        """Claim and return the next job that is not done; None where no job is ready, or the store does not answer.

        Raises OSError where it has not answered for `PATIENCE` seconds.
        """
        now = time.monotonic()
        since, last = self._silent or (now, float("-inf"))
        if now - last < LOOK:
            return None
        try:
            self._look()
            while (job := self.frontier.next(now, slots)) is not None and not self._claim(job, slots):
                pass
        except OSError:
            if now - since > PATIENCE:
                raise
            self._silent = since, time.monotonic()
            return None
        self._silent = None
        return job

    def _claim(self, job: Job, slots: int) -> bool:
        """Claim the job, which is about to start. False where another sweep has it, or has ended it."""
        try:
            if self.claims.holds(job.key):
                return True
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
        except OSError:
            self.frontier.released(job.key)
            raise
        return self.frontier.state[job.key] == "running"

    def finished(self, key: str) -> None:
        """A trial has done the job."""
        self.frontier.finished(key)
        self.claims.drop(key)

    def failed(self, key: str, cause: Cause, machines: int) -> bool:
        """A trial of the job failed on one of so many machines. True where it will be retried; else it has failed for
        good.

        Its claim stays.
        """
        return self.frontier.failed(key, time.monotonic(), cause, machines)

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
        done = {results[path] for path in merged.finished(self.store, list(results))}
        failed = {failures[path] for path in self.store.exists(list(failures))} - done
        for key in done | failed:
            if key in done:
                self.frontier.finished(key)
            else:
                self.frontier.give_up(key)
            for watcher in self.watchers:
                watcher.settled(key, key in done)
            self.claims.drop(key)
        return keys - done - failed

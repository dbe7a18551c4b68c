"""Between the frontier and Ray Tune: chooses the job of the next trial, and reports how each trial ended."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from orchestrator.engine import cluster, connection, deaths
from orchestrator.engine.frontier import Frontier
from orchestrator.engine.progress import Watcher
from orchestrator.engine.retries import Cause
from orchestrator.engine.room import Bundle, Room
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job
from orchestrator.plan.packing import Packing
from orchestrator.store import merged
from orchestrator.store.claims import Claims
from orchestrator.store.store import Store

#: Seconds between two reads of the claims of other sweeps.
LOOK_AT_CLAIMS = 2.0
#: Seconds of work for each slot that are claimed in advance, and at most this many jobs.
AHEAD, MOST_AHEAD = 2.0, 32


#: Why a trial ends whose neighbour faulted: it says nothing about its job.
BESIDE = "ended because a job beside it faulted the GPU that they share by CUDA's Multi-Process Service"


def _is_fault(report: dict[str, Any]) -> bool:
    return report.get("cause") == "error" and "CUDA error" in report["error"]


class Feed(Searcher):
    """Ray Tune's search algorithm: gives Tune the frontier's next job, and tells the frontier how it ended."""

    def __init__(
        self,
        frontier: Frontier,
        packing: Packing,
        claims: Claims,
        store: Store,
        watchers: Sequence[Watcher],
        on_failure: Callable[[dict[str, Any]], None],
        autoscaled: bool = False,
        stopped: Callable[[], bool] = lambda: False,
        shares_gpus: bool = False,
    ) -> None:
        super().__init__()
        #: Whether the user has stopped the sweep. Called before and after each job: an exception that a signal raises
        #: inside Ray's callbacks may be swallowed there.
        self.stopped = stopped
        self.frontier, self.packing, self.claims, self.store = frontier, packing, claims, store
        self.watchers, self.room = watchers, Room(frontier, packing, autoscaled)
        #: Takes the row of the store's failures of each job that failed for good.
        self.on_failure = on_failure
        #: The job of each live trial, and the resources that it requests.
        self.job_of: dict[str, str] = {}
        self.bundle_of: dict[str, Bundle] = {}
        #: Live trials without a job, whose workers start for jobs that wait for others, and what all of them requested.
        self.warming: set[str] = set()
        self.warmed: list[Bundle] = []
        #: Whether a job has ended, so that its worker is there for the next.
        self.job_ended = False
        #: Live trials that have not begun.
        self.starting: set[str] = set()
        #: Whether trials share GPUs by CUDA's Multi-Process Service, and those beside one that faulted its GPU.
        self.shares_gpus, self.bystanders = shares_gpus, set[str]()
        #: The report of a trial that ended without one of its own, by the trial's id.
        self.deaths: dict[str, dict[str, Any]] = {}
        #: How many processes this machine's kernel had killed for lack of memory when a trial began.
        self.kills: dict[str, int] = {}
        #: Why the sweep must stop, where it must: Ray has ended, or the store cannot be used.
        self.lost = False
        self.store_error: str | None = None
        self._reports: dict[str, dict[str, Any]] = {}
        self._looked_at_claims = float("-inf")

    def __enter__(self) -> Feed:
        return self

    def __exit__(self, *_: object) -> None:
        if not self.lost:
            self.room.release()

    # Calls from Tune

    def suggest(self, trial_id: str) -> Any:
        self._stop_if_requested()
        if self.lost or self.store_error is not None or self.frontier.exhausted:
            return Searcher.FINISHED
        self.room.look()
        # A trial that does not fit would wait for a slot while more important jobs become ready.
        if self.room.full(self.bundle_of.values()):
            return None
        job = self._next()
        if job is not None:
            self.job_of[trial_id] = job.key
            config = {"key": job.key, "title": job.title, "spec": dict(job.spec), "results": job.results}
            return config | {"halvings": self.frontier.halvings(job.key)} | self._resources(trial_id, job)
        if self.frontier.exhausted:
            return Searcher.FINISHED
        return self._warm_up(trial_id) if self._may_warm_up() else None

    def _may_warm_up(self) -> bool:
        """Whether another worker may start: beside jobs that have begun, which would take it, and before one ended."""
        if not self.keeps_workers or self.job_ended or self.starting - self.warming:
            return False
        running = [self.bundle_of[trial] for trial in self.job_of]
        return len(self.warmed) < self.frontier.counts["waiting"] and not self.room.full([*running, *self.warmed])

    def _warm_up(self, trial_id: str) -> dict[str, Any]:
        resources = self._resources(trial_id, self.frontier.first_waiting())
        self.warming.add(trial_id)
        self.warmed.append(self.bundle_of[trial_id])
        return {"key": None} | resources

    @property
    def keeps_workers(self) -> bool:
        """Whether workers without a job stay, and start, for jobs that will begin: on this machine alone."""
        to_come = self.frontier.counts["waiting"] + self.frontier.counts["ready"] + len(self.starting)
        return not self.room.autoscaled and to_come > 0

    def _resources(self, trial_id: str, job: Job) -> dict[str, Any]:
        bundle, need = self.room.bundle(job), job.resources
        self.starting.add(trial_id)
        self.bundle_of[trial_id] = tuple(bundle.items())
        resources = {"gpu": bundle.get("GPU", 0.0), "cpu": need.cpu, "accelerator_type": need.accelerator_type}
        return resources | {"minutes": need.minutes}

    def on_trial_start(self, trial_id: str, gpu: float) -> None:
        """The trial began on `gpu` GPUs, a share below 1 or a whole number."""
        self.starting.discard(trial_id)
        if trial_id in self.warming:
            return
        self.kills[trial_id] = deaths.kernel_kills()
        for watcher in self.watchers:
            watcher.started(self.job_of[trial_id], gpu)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        # A worker that will end itself reports the reason first.
        self._reports[trial_id] = result

    def on_trial_death(self, trial_id: str, error: Exception) -> None:
        """The trial ended with an error of Ray's; Tune calls `on_trial_complete` next."""
        hosts = cluster.hosts()
        host = hosts.get(cluster.address_of(getattr(error, "actor_id", None)), "")
        killed = deaths.kernel_kills() > self.kills.get(trial_id, math.inf)
        self.deaths[trial_id] = deaths.account(error, hosts, host, killed)

    def faulted(self, trial_id: str) -> bool:
        """Whether the trial has faulted a GPU that others share, whose kernels may then never end."""
        if not self.shares_gpus or trial_id in self.bystanders or not _is_fault(self._reports.get(trial_id, {})):
            return False
        self.bystanders |= self.bundle_of.keys() - {trial_id}
        return True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        self.bundle_of.pop(trial_id)
        self.starting.discard(trial_id)
        if trial_id in self.warming:
            # Where it failed, the job that needs such a worker will say why.
            self.warming.remove(trial_id)
            self.bystanders.discard(trial_id)
            self._reports.pop(trial_id, None)
            self.deaths.pop(trial_id, None)
            return
        self.job_ended = True
        key = self.job_of.pop(trial_id)
        report = self._reports.pop(trial_id, None) or result or {}
        for words in report.get("said", ()):
            for watcher in self.watchers:
                watcher.said(key, words)
        death = self.deaths.pop(trial_id, None)
        if trial_id in self.bystanders:
            self.bystanders.remove(trial_id)
            if error and ("error" not in report or _is_fault(report)):
                report = {"cause": "node", "error": BESIDE, "traceback": str((death or report).get("traceback", ""))}
        self.kills.pop(trial_id, None)
        if "gpu_peak" in report:
            self.packing.observe(self.frontier.jobs[key].group, report["gpu_peak"], report["gpu_total"])
        if not error and "error" not in report:
            self._finished(key, report)
            return
        if "error" not in report:
            if not connection.alive():
                self.lost = True
                return
            report = death or deaths.account(None, {})
            if self._is_done(key):
                # The worker died after its job was complete: the result is in the store.
                self._finished(key, {"host": report["host"], "death": report["error"]})
                return
        self._failed(key, report)

    def save(self, checkpoint_path: str) -> None:
        # Tune expects a file; the sweep's state is in the store.
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep resumes from its store, not from Tune's state")

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher at the start, for a restore that never happens.
        return {}

    # Decisions

    def _finished(self, key: str, report: dict[str, Any]) -> None:
        self.frontier.finished(key)
        self.claims.drop(key)
        for watcher in self.watchers:
            watcher.finished(key, report)
        self._stop_if_requested()

    def _is_done(self, key: str) -> bool:
        path = self.frontier.jobs[key].results
        try:
            return path in merged.finished(self.store, [path])
        except OSError:
            # The job's next attempt will report the store's error.
            return False

    def _stop_if_requested(self) -> None:
        if self.stopped():
            raise KeyboardInterrupt

    def _next(self) -> Job | None:
        """Claim and return the next job that is not done; None where no job is ready."""
        self._look_at_claims()
        while (job := self.frontier.next(time.monotonic(), self.room.slots)) is not None:
            if self.claims.holds(job.key):
                return job
            # Short jobs are claimed in batches; a long job singly, so that another sweep can claim the next one.
            in_advance = int(AHEAD * self.room.slots / max(self.frontier.estimates[job.key], 0.01))
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

    def _failed(self, key: str, report: dict[str, Any]) -> None:
        cause: Cause = report["cause"]
        retried = self.frontier.failed(key, time.monotonic(), cause)
        for watcher in self.watchers:
            watcher.failed(key, report["error"].splitlines()[0], retried)
        if retried:
            return
        self.claims.drop(key)
        if cause in ("store", "disk"):
            # Not the job's fault: no other job could store its results either.
            self.store_error = f"{report['error']} (on {report.get('host') or 'this machine'})"
            return
        job = self.frontier.jobs[key]
        row: dict[str, Any] = {"job": key, "work": keys.work(key, job.spec), "title": job.title}
        row |= {"attempt": self.frontier.attempts(key), "error": report["error"], "traceback": report["traceback"]}
        self.on_failure(row | {"host": report.get("host", ""), "failed_at": datetime.now(UTC)})

    def _look_at_claims(self) -> None:
        """Record the end of jobs that other sweeps had claimed, and make those ready again that they did not finish."""
        if not self.frontier.claimed or time.monotonic() - self._looked_at_claims < LOOK_AT_CLAIMS:
            return
        self._looked_at_claims = time.monotonic()
        for key in self._settle(self.frontier.claimed - self.claims.claimed_elsewhere()):
            self.frontier.released(key)

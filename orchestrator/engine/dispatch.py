"""Between the frontier and Ray Tune: chooses the job of the next trial, and reports how each trial ended."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from ray.tune.search import Searcher

from orchestrator.engine import cluster, connection, deaths
from orchestrator.engine.early_workers import EarlyWorkers
from orchestrator.engine.frontier import Frontier
from orchestrator.engine.live_trial import LiveTrial, faulted, report_beside_fault
from orchestrator.engine.progress import Watcher
from orchestrator.engine.room import Room
from orchestrator.engine.shared_jobs import SharedJobs
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job
from orchestrator.plan.packing import Packing
from orchestrator.store.claims import Claims
from orchestrator.store.store import Store


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
        self.frontier, self.packing, self.watchers = frontier, packing, watchers
        self.jobs = SharedJobs(frontier, claims, store, watchers)
        self.room = Room(frontier, packing, autoscaled)
        self.early_workers = EarlyWorkers(frontier, self.room)
        #: Takes the row of the store's failures of each job that failed for good.
        self.on_failure = on_failure
        #: Whether the user has stopped the sweep. Called before and after each job: an exception that a signal raises
        #: inside Ray's callbacks may be swallowed there.
        self.stopped = stopped
        #: Whether trials share GPUs by CUDA's Multi-Process Service.
        self.shares_gpus = shares_gpus
        #: The live trials by Tune's id.
        self.trials: dict[str, LiveTrial] = {}
        #: Why the sweep must stop, where it must: Ray has ended, or the store cannot be used.
        self.lost = False
        self.store_error: str | None = None

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
        if self.room.full(trial.bundle for trial in self.trials.values()):
            return None
        try:
            job = self.jobs.next(self.room.slots)
        except OSError as error:
            self.store_error = f"{type(error).__name__}: {error}"
            return Searcher.FINISHED
        if job is not None:
            config = dict[str, Any](key=job.key, title=job.title, spec=dict(job.spec), results=job.results)
            return config | self._resources(trial_id, job, job.key)
        if self.frontier.exhausted:
            return Searcher.FINISHED
        job = self.early_workers.next(self.trials.values())
        if job is None:
            return None
        resources = self._resources(trial_id, job, None)
        self.early_workers.bundles.append(self.trials[trial_id].bundle)
        return {"key": None} | resources

    def _resources(self, trial_id: str, job: Job, key: str | None) -> dict[str, Any]:
        """What the new trial requests, which is enough for `job`: of the job `key`, or of none."""
        bundle, need = self.room.bundle(job), job.resources
        self.trials[trial_id] = LiveTrial(key, tuple(bundle.items()))
        resources = {"gpu": bundle.get("GPU", 0.0), "cpu": need.cpu, "accelerator_type": need.accelerator_type}
        return resources | {"minutes": need.minutes, "halvings": self.frontier.halvings(job.key)}

    @property
    def keeps_workers(self) -> bool:
        """Whether workers without a job stay."""
        return self.early_workers.needed(self.trials.values())

    def on_trial_start(self, trial_id: str, gpu: float) -> None:
        """The trial began on `gpu` GPUs, a share below 1 or a whole number."""
        trial = self.trials[trial_id]
        trial.begun = True
        if trial.job is None:
            return
        trial.kills = deaths.kernel_kills()
        for watcher in self.watchers:
            watcher.started(trial.job, gpu)

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        # A worker that will end itself reports the reason first.
        self.trials[trial_id].report = result

    def on_trial_death(self, trial_id: str, error: Exception) -> None:
        """The trial ended with an error of Ray's; Tune calls `on_trial_complete` next."""
        trial, hosts = self.trials[trial_id], cluster.hosts()
        host = hosts.get(cluster.address_of(getattr(error, "actor_id", None)), "")
        trial.death = deaths.account(error, hosts, host, kernel_killed=deaths.kernel_kills() > trial.kills)

    def faulted(self, trial_id: str) -> bool:
        """Whether the trial has faulted a GPU that others share, whose kernels may then never end."""
        trial = self.trials[trial_id]
        return self.shares_gpus and not trial.beside_fault and faulted(trial.report)

    def on_fault_beside(self, trial_id: str) -> None:
        """The trial's worker is ended, because one beside it has faulted their GPU."""
        self.trials[trial_id].beside_fault = True

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        trial = self.trials.pop(trial_id)
        if trial.job is None:
            # Where it failed, the job that needs such a worker will say why.
            return
        self.early_workers.over = True
        report = trial.report or result or {}
        for words in report.get("said", ()):
            for watcher in self.watchers:
                watcher.said(trial.job, words)
        if "gpu_peak" in report:
            self.packing.observe(self.frontier.jobs[trial.job].group, report["gpu_peak"], report["gpu_total"])
        if error and trial.beside_fault:
            report = report_beside_fault(trial, report)
        if not error and "error" not in report:
            self._finished(trial.job, report)
        elif "error" not in report and not connection.alive():
            self.lost = True
        else:
            self._failed(trial.job, report if "error" in report else trial.death or deaths.account(None, {}))

    def save(self, checkpoint_path: str) -> None:
        # Tune expects a file; the sweep's state is in the store.
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep resumes from its store, not from Tune's state")

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its searcher at the start, for a restore that never happens.
        return {}

    # The ends of jobs

    def _stop_if_requested(self) -> None:
        if self.stopped():
            raise KeyboardInterrupt

    def _finished(self, key: str, report: dict[str, Any]) -> None:
        self.jobs.finished(key)
        for watcher in self.watchers:
            watcher.finished(key, report)
        self._stop_if_requested()

    def _failed(self, key: str, report: dict[str, Any]) -> None:
        if self.jobs.is_done(key):
            # The trial failed, or its worker died, after the results were in the store.
            self._finished(key, {"host": report.get("host", ""), "death": report["error"]})
            return
        retried = self.jobs.failed(key, report["cause"], self.room.machines)
        for watcher in self.watchers:
            watcher.failed(key, report["error"].splitlines()[0], retried)
        if retried:
            return
        if report["cause"] in ("store", "disk"):
            # Not the job's fault: no other job could store its results either.
            self.store_error = f"{report['error']} (on {report.get('host') or 'this machine'})"
        else:
            job = self.frontier.jobs[key]
            row: dict[str, Any] = {"job": key, "work": keys.work(key, job.spec), "title": job.title}
            row |= {"attempt": self.frontier.attempts(key), "error": report["error"], "traceback": report["traceback"]}
            try:
                self.on_failure(row | {"host": report.get("host", ""), "failed_at": datetime.now(UTC)})
            except OSError as error:
                self.store_error = f"{type(error).__name__}: {error}"
        # Not before it is recorded: another sweep would find neither claim nor failure, and run the job.
        self.jobs.claims.drop(key)

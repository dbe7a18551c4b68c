"""Ray Tune's controller, changed where sweeps need it: an error ends its trial only, finished trials are forgotten, and
a worker receives its next job in one message.

Tune keeps some 75 kB for each trial that it ever ran and a snapshot of all of them for a restore; a sweep resumes from
its store instead. Tune also ends the run on an exception that it does not know. For each trial on a worker that stays
it sends four messages, waits for the answers to two of them, and asks Ray's control store three times for the class of
the trials: half of what a short job costs.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import ray
import ray.tune.experiment
import ray.tune.registry
import ray.tune.tune
from ray.exceptions import RayActorError
from ray.tune import Callback
from ray.tune.execution.tune_controller import TuneController
from ray.tune.progress_reporter import TrialProgressCallback

from orchestrator.engine import connection
from orchestrator.engine.actors import Actors
from orchestrator.engine.idle_workers import IdleWorkers

#: Finished trials after which they are forgotten.
KEPT = 64


class InheritingClasses:
    """The classes of workers that have the environment of their node: Tune's cache of classes, which sets one for each.

    A worker with an environment of its own begins as another program, which imports Ray for that alone.
    """

    def __init__(self) -> None:
        self.get = functools.cache(ray.remote)


class Controller(TuneController):
    """The controller that `tune.Tuner` creates once this module is imported.

    Its searcher is an `orchestrator.engine.dispatch.Feed`, which receives the reason of a trial's end before its end.
    """

    def __init__(self, callbacks: Sequence[Callback] = (), **settings: Any) -> None:
        # Tune adds a reporter that prints nothing here and holds every trial in memory.
        kept = [callback for callback in callbacks if not isinstance(callback, TrialProgressCallback)]
        super().__init__(callbacks=kept, **settings)
        self._actor_manager = Actors(resource_manager=self._actor_manager._resource_manager)
        self._feed: Any = self._search_alg.searcher  # type: ignore[attr-defined]
        self._actor_cache = IdleWorkers(keeps_all=lambda: self._feed.keeps_workers)
        if connection.started():
            self._class_cache: Any = InheritingClasses()
        #: Trials whose worker has not received their job yet, since it is running no trial at all.
        self._handed_over: set[Any] = set()
        #: Tune's numbers of the workers that were killed, of which some have reported the end of their job before.
        self._killed: set[int] = set()
        # The class of the trials is registered by now, and stays the same until the end of the run.
        registry: Any = ray.tune.registry._global_registry
        for lookup in ("contains", "get"):
            setattr(registry, lookup, functools.cache(functools.partial(getattr(type(registry), lookup), registry)))

    def step(self) -> None:
        super().step()  # type: ignore[no-untyped-call]
        if len(self._stopped_trials) + len(self._failed_trials) > KEPT:
            self._forget_finished()

    def _forget_finished(self) -> None:
        finished = {trial for trial in self._stopped_trials | self._failed_trials if trial not in self._trial_to_actor}
        # Changed in place: callbacks and the scheduler hold the list.
        self._trials[:] = [trial for trial in self._trials if trial not in finished]
        for trials in (self._live_trials, self._stopped_trials, self._failed_trials, self._trials_to_cache):
            trials -= finished
        for trial in finished:
            self._trial_metadata.pop(trial.trial_id, None)

    def checkpoint(self, force: bool = False, wait: bool = False) -> None:
        """Save Tune's state once, at the end, because Tune reads it then; no sweep resumes from it."""
        if force:
            self._forget_finished()
            super().checkpoint(force=force, wait=wait)

    def _maybe_reuse_cached_actor(self, trial: Any) -> bool:
        # A trial without a job is there to start a worker, unless there are idle ones in its place.
        if trial.config["key"] is None and not self._feed.early_workers.over:
            return False
        reused: bool = super()._maybe_reuse_cached_actor(trial)
        return reused

    def _schedule_trial_reset(self, trial: Any, new_config: dict[str, Any], new_experiment_tag: str) -> None:
        """Note that the trial continues on the worker of a finished one."""
        self._resetting_trials.add(trial)

    def _actor_started(self, tracked_actor: Any, log: str = "STARTED") -> None:
        # Tune reports only results and ends of trials to its search algorithm.
        trial = self._actor_to_trial[tracked_actor]
        self._feed.on_trial_start(trial.trial_id, trial.config["gpu"])
        super()._actor_started(tracked_actor, log)

    def _maybe_add_actors(self) -> None:
        super()._maybe_add_actors()
        while self._resetting_trials:
            trial = self._resetting_trials.pop()
            self._handed_over.add(trial)
            self._actor_started(self._trial_to_actor[trial], log="REUSED")

    def _schedule_trial_train(self, trial: Any) -> None:
        if trial not in self._handed_over:
            super()._schedule_trial_train(trial)
            return
        self._handed_over.remove(trial)
        on_result, on_error = self._on_training_result, self._trial_task_failure
        self._schedule_trial_task(trial, "next_job", (trial.config,), on_result=on_result, on_error=on_error)

    def _process_trial_failure(self, trial: Any, exception: Any) -> None:
        self._feed.on_trial_death(trial.trial_id, exception)
        faulted = self._feed.faulted(trial.trial_id)
        super()._process_trial_failure(trial, exception)
        if faulted:
            self._end_neighbours(trial)
        if faulted or isinstance(exception, RayActorError):
            # What ended this worker may have ended idle ones too, which nothing tells before a job is lost on each.
            self._cleanup_cached_actors(force_all=True)

    def _end_neighbours(self, trial: Any) -> None:
        """End all other workers, for the reason in `live_trial`."""
        live = self._actor_manager._live_actors_to_ray_actors_resources
        for other, worker in self._trial_to_actor.items():
            if other is not trial and worker in live:
                self._feed.on_fault_beside(other.trial_id)
                self._killed.add(worker.actor_id)
                ray.kill(live[worker][0])

    def _maybe_cache_trial_actor(self, trial: Any) -> bool:
        killed = self._trial_to_actor[trial].actor_id in self._killed
        return not killed and bool(super()._maybe_cache_trial_actor(trial))


def _set_actor(trial: Any, actor: Any) -> None:
    """Record the worker of a trial, without a message that asks it for metrics: they come with the trial's report."""
    trial.temporary_state.ray_actor = actor


ray.tune.experiment.Trial.set_ray_actor = _set_actor  # type: ignore[method-assign]
ray.tune.tune.TuneController = Controller  # type: ignore[assignment, attr-defined]

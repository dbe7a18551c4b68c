"""Ray Tune's controller, changed where sweeps need it: an error ends its trial only, and finished trials are forgotten.

Tune keeps some 75 kB for each trial that it ever ran and a snapshot of all of them for a restore; a sweep resumes from
its store instead. Tune also ends the run on an exception that it does not know.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray.tune.tune
from ray.air.execution._internal import RayActorManager
from ray.exceptions import RayActorError, RayTaskError
from ray.tune import Callback
from ray.tune.execution.tune_controller import TuneController
from ray.tune.progress_reporter import TrialProgressCallback

#: Finished trials after which they are forgotten.
KEPT = 64


class EndedError(RayActorError):
    """An exception that Tune does not know, wrapped as the death of a worker, which Tune handles."""

    def __init__(self, reason: Exception) -> None:
        super().__init__(error_msg=f"{type(reason).__name__}: {reason}")
        self.reason = reason

    def __reduce__(self) -> tuple[type, tuple[Exception]]:
        return EndedError, (self.reason,)


class _Actors(RayActorManager):
    """Tune's manager of workers, in which every error fails its trial and never the run.

    Ray's class handles an actor's death and an error of the actor's code, and raises anything else out of the run:
    the memory monitor's report that it ended a worker, or a result that cannot be read.
    """

    def _actor_task_failed(self, tracked_actor_task: Any, exception: Exception) -> None:
        if not isinstance(exception, RayActorError | RayTaskError):
            exception = EndedError(exception)
        super()._actor_task_failed(tracked_actor_task, exception)


class Controller(TuneController):
    """The controller that `tune.Tuner` creates once this module is imported.

    Its searcher is an `orchestrator.engine.dispatch.Feed`, which receives the reason of a trial's end before its end.
    """

    def __init__(self, callbacks: Sequence[Callback] = (), **settings: Any) -> None:
        # Tune adds a reporter that prints nothing here and holds every trial in memory.
        kept = [callback for callback in callbacks if not isinstance(callback, TrialProgressCallback)]
        super().__init__(callbacks=kept, **settings)
        self._actor_manager = _Actors(resource_manager=self._actor_manager._resource_manager)

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

    def _process_trial_failure(self, trial: Any, exception: Any) -> None:
        searcher: Any = self._search_alg.searcher  # type: ignore[attr-defined]
        searcher.on_trial_death(trial.trial_id, exception)
        super()._process_trial_failure(trial, exception)


ray.tune.tune.TuneController = Controller  # type: ignore[assignment, attr-defined]

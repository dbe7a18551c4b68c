"""What the controller does with the workers beside one that died, without a Ray."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import ray
from ray.exceptions import ActorDiedError, RayTaskError
from ray.tune.execution.tune_controller import TuneController

from orchestrator.engine.controller import Controller


class Named:
    """A trial, or its worker."""

    def __init__(self, name):
        self.trial_id = self.actor_id = name


@pytest.fixture
def controller(monkeypatch):
    """A controller whose trials "ended" and "runs" have live workers and whose trial "starts" has none yet."""
    controller = Controller.__new__(Controller)
    trials = [Named(name) for name in ("ended", "runs", "starts")]
    controller._trial_to_actor = {trial: Named(trial.trial_id) for trial in trials}
    live = {worker: (worker.actor_id, None) for worker in controller._trial_to_actor.values()}
    del live[controller._trial_to_actor[trials[2]]]
    controller._actor_manager = SimpleNamespace(_live_actors_to_ray_actors_resources=live)
    controller._killed = set()
    controller.excused, controller.killed, controller.flushed = [], [], []
    controller._feed = SimpleNamespace(on_trial_death=lambda *_: None, on_fault_beside=controller.excused.append)
    controller._cleanup_cached_actors = lambda force_all: controller.flushed.append(force_all)
    monkeypatch.setattr(ray, "kill", controller.killed.append)
    monkeypatch.setattr(TuneController, "_process_trial_failure", lambda self, trial, exception: None)
    monkeypatch.setattr(TuneController, "_maybe_cache_trial_actor", lambda self, trial: True)
    controller.trials = trials
    return controller


def test_a_fault_ends_the_workers_beside_it_and_excuses_only_them(controller):
    controller._feed.faulted = lambda trial_id: True
    controller._process_trial_failure(controller.trials[0], RayTaskError("train", "", ValueError()))
    assert (controller.excused, controller.killed, controller.flushed) == (["runs"], ["runs"], [True])
    # The report of its job may have come before the end of its worker, which is none to keep for another job.
    kept = {trial.trial_id: controller._maybe_cache_trial_actor(trial) for trial in controller.trials}
    assert kept == {"ended": True, "runs": False, "starts": True}


@pytest.mark.parametrize(
    ("error", "flushed"), [(ActorDiedError(), [True]), (RayTaskError("train", "", ValueError()), [])]
)
def test_where_a_worker_died_no_job_goes_to_idle_ones_that_may_be_dead_too(controller, error, flushed):
    controller._feed.faulted = lambda trial_id: False
    controller._process_trial_failure(controller.trials[0], error)
    assert (controller.excused, controller.killed, controller.flushed) == ([], [], flushed)

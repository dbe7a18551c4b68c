"""Runs the frontier's ready jobs as Ray Tune trials; the decisions are made in `frontier` and `dispatch`.

Which jobs are done is read from the store, never from Ray Tune's state, which is deleted at the end.
"""

from __future__ import annotations

import functools
import itertools
import shutil
import tempfile
from collections.abc import Sequence
from typing import Any

import ray.tune.tune
from ray import tune
from ray.tune.schedulers import FIFOScheduler

from orchestrator.engine import connection
from orchestrator.engine.cluster import bundle
from orchestrator.engine.controller import Controller
from orchestrator.engine.dispatch import Feed
from orchestrator.engine.trial import Trial
from orchestrator.jobs.job import Execute, JobContext
from orchestrator.store.store import StoreError


class NewestFirst(FIFOScheduler):
    """Gives a free actor to the newest waiting trial.

    Tune's default is the oldest, whose actor is about to start; it would take the free actor and end the starting one,
    so that jobs shorter than the start of a process would always run one at a time. At most as many trials wait as
    there are slots, so none waits long.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = itertools.count()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        trial.place = next(self.count)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        # Tune calls this several times a second, so it is also where a dead Ray is noticed.
        if connection.ended():
            raise connection.ClusterLostError("Ray's own processes died")
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == trial.PENDING]
        return max(waiting, key=lambda trial: trial.place, default=None)


def run(
    feed: Feed,
    context: JobContext,
    execute: Execute,
    callbacks: Sequence[tune.Callback] = (),
    folder: str | None = None,
) -> None:
    """Run the jobs of `feed` on the connected cluster until each is done, failed for good, or blocked by a failure.

    `callbacks` are Tune's own, which write below `folder`. Raises ClusterLostError where no node of the cluster is
    left or Tune fails, and StoreError where the store, or a disk that Ray needs, can no longer be used; running jobs
    are then ready again.
    """
    assert ray.tune.tune.TuneController is Controller  # type: ignore[attr-defined]
    trainable = tune.with_resources(tune.with_parameters(Trial, execute=execute, context=context), _placement)
    try:
        with tempfile.TemporaryDirectory(prefix="signsym-tune-") as scratch, feed:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=feed, scheduler=NewestFirst(), num_samples=-1, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=folder or scratch,
                    # A checkpoint at a trial's end would go to this folder, which other machines do not have.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    verbose=0,
                    callbacks=list(callbacks),
                ),
            ).fit()
    except connection.ClusterLostError:
        feed.lost = True
    except Exception as error:
        # No job's fault: a job's error ends its trial only. Tune wraps the cause into text.
        feed.frontier.interrupted()
        _check_disk(error)
        last = str(error).strip().splitlines()[-1:] or [type(error).__name__]
        raise connection.ClusterLostError(f"Ray Tune ended with an error: {last[0]}") from error
    if feed.lost:
        feed.frontier.interrupted()
        raise connection.ClusterLostError("Ray's own processes died")
    if feed.store_error is not None:
        raise StoreError(feed.store_error)


def _check_disk(error: Exception) -> None:
    """Raise StoreError where Tune failed because this machine's temporary folder is full."""
    scratch = tempfile.gettempdir()
    if "No space left on device" in str(error) or shutil.disk_usage(scratch).free == 0:
        words = f"no space left on this machine for temporary files ({scratch}): free some, or name another folder"
        raise StoreError(f"{words} by TMPDIR") from error


def _placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return _factory(config["gpu"], config["cpu"], config["accelerator_type"])


@functools.cache
def _factory(gpu: float, cpu: float, accelerator_type: str | None) -> tune.PlacementGroupFactory:
    # The same object for equal trials: Tune compares them many times for each, and two objects part by part.
    return tune.PlacementGroupFactory([bundle(gpu, cpu, accelerator_type)])

"""The frontier's ready jobs as Ray Tune trials: a thin shell around decisions that are made elsewhere.

Ray Tune's own state is never asked what is done, so it is thrown away at the end; the store is asked.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

from ray import tune

from orchestrator.connection import ClusterLostError, bundle
from orchestrator.feed import Feed, NewestFirst
from orchestrator.jobs import Context, Execute
from orchestrator.store import StoreError
from orchestrator.trial import Trial


class _Starts(tune.Callback):
    """Tells the feed which trials began: Tune tells its search algorithm only of results and ends."""

    def __init__(self, feed: Feed) -> None:
        self.feed = feed

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.feed.on_trial_start(trial.trial_id, trial.config["gpu"])


def run(
    feed: Feed, context: Context, execute: Execute, callbacks: Sequence[tune.Callback] = (), folder: str | None = None
) -> None:
    """Run the jobs of `feed` on the connected cluster until each is done, failed for good, or blocked by a failure.

    `callbacks` are Tune's own, which write below `folder`. Raises ClusterLostError where no node of the cluster is
    left, and StoreError where the store cannot be used any more; what ran then is ready again.
    """
    trainable = tune.with_resources(tune.with_parameters(Trial, execute=execute, context=context), _placement)
    watching = [_Starts(feed), *callbacks]
    try:
        with tempfile.TemporaryDirectory(prefix="signsym-tune-") as scratch, feed:
            tune.Tuner(
                trainable,
                tune_config=tune.TuneConfig(
                    search_alg=feed, scheduler=NewestFirst(feed.deaths), num_samples=-1, reuse_actors=True
                ),
                run_config=tune.RunConfig(
                    name="sweep",
                    storage_path=folder or scratch,
                    # A checkpoint at a trial's end would go to this folder, which other machines do not have.
                    checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
                    verbose=0,
                    callbacks=watching,
                ),
            ).fit()
    except ClusterLostError:
        feed.lost = True
    if feed.lost:
        feed.frontier.interrupted()
        raise ClusterLostError("Ray's own processes died")
    if feed.store_error is not None:
        raise StoreError(feed.store_error)


def _placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    return tune.PlacementGroupFactory([bundle(config["gpu"], config["cpu"], config["accelerator_type"])])

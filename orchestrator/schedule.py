"""The frontier's ready jobs as Ray Tune trials: a thin shell around decisions that are made elsewhere.

Ray Tune's own state is never asked what is done, so it is thrown away at the end; the store is asked.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import socket
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Read by Ray when it is imported or started. Automatic loggers import torch into the driver and write five files a
# trial; snapshots of all trials are of no use here; more than one trial must be able to wait for a free slot.
_ENVIRONMENT = {
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "1000000",
    "TUNE_MAX_PENDING_TRIALS_PG": "16",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
    # The newer output engine prints a table of its own whatever the verbosity.
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "1",
}
for _name, _value in _ENVIRONMENT.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402
from ray import tune  # noqa: E402
from ray.tune.schedulers import FIFOScheduler  # noqa: E402
from ray.tune.search import ConcurrencyLimiter, Searcher  # noqa: E402

from orchestrator.cells import Resources  # noqa: E402
from orchestrator.frontier import Frontier, Retries  # noqa: E402
from orchestrator.plan import Job  # noqa: E402
from orchestrator.progress import View  # noqa: E402
from orchestrator.work import Context  # noqa: E402

#: What a trial calls: (job key, job spec, context).
Execute = Callable[[str, dict[str, Any], Context], None]
#: Longest traceback that is kept, in characters; the end says what happened.
TRACEBACK = 20_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """A job that failed for good."""

    job: Job
    attempts: int
    error: str
    traceback: str
    host: str


class ClusterLostError(RuntimeError):
    """Ray's own processes are gone: no job can run, and none is to blame."""


class Trial(tune.Trainable):
    """A job while Ray Tune runs it. The actor that hosts it stays for the next job, with what it has loaded."""

    def setup(self, config: dict[str, Any], execute: Execute | None = None) -> None:
        import torch

        assert execute is not None
        self.execute, self.job = execute, config
        # Ray's own setting of the threads is lost where a login shell exports OMP_NUM_THREADS.
        torch.set_num_threads(max(1, int(config["cpu"])))

    def step(self) -> dict[str, Any]:
        try:
            self.execute(self.job["key"], self.job["spec"], self.job["context"])
        except Exception as error:
            # Reported, not raised: a raised error would cost the actor and all that it has loaded.
            text = f"{type(error).__name__}: {error}"
            trace = traceback.format_exc()[-TRACEBACK:]
            return {"done": True, "error": text, "traceback": trace, "host": socket.gethostname()}
        return {"done": True}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self.job = new_config
        return True

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Nothing: what a trial made is in the store."""

    def load_checkpoint(self, checkpoint: Any) -> None:
        """Nothing: a trial that starts again asks the store."""


class _Feed(Searcher):
    """Gives Tune the frontier's next job, and the frontier what became of it."""

    def __init__(self, frontier: Frontier, view: View, context: Context, on_failure: Callable[[Failure], None]) -> None:
        super().__init__()
        self.frontier, self.view, self.context, self.on_failure = frontier, view, context, on_failure
        self.job_of: dict[str, str] = {}
        self.lost = False

    def suggest(self, trial_id: str) -> Any:
        job = None if self.lost else self.frontier.next(time.monotonic())
        if job is None:
            return Searcher.FINISHED if self.lost or self.frontier.exhausted else None
        self.job_of[trial_id] = job.key
        return {"key": job.key, "spec": dict(job.spec), "context": self.context, **dataclasses.asdict(job.resources)}

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        key = self.job_of.pop(trial_id)
        if not error and result is not None and "error" not in result:
            self.frontier.finished(key)
            self.view.finished(key)
            return
        words = "the worker process died (killed, out of memory or its node lost)"
        said = result if result is not None and "error" in result else {}
        if not said and not any(node["Alive"] for node in ray.nodes()):
            self.lost = True
            return
        text, trace = said.get("error", words), said.get("traceback", words)
        again = self.frontier.failed(key, time.monotonic())
        self.view.failed(key, text.splitlines()[0], again)
        if not again:
            attempts, host = self.frontier.attempts[key], said.get("host", "")
            job = self.frontier.jobs[key]
            self.on_failure(Failure(job=job, attempts=attempts, error=text, traceback=trace, host=host))

    def save(self, checkpoint_path: str) -> None:
        # Tune insists on a file; the state is the store's.
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        raise NotImplementedError("a sweep goes on from its store, not from Tune's state")

    def __getstate__(self) -> dict[str, Any]:
        # Tune also pickles itself at the start, for a restore that never happens.
        return {}


class _NewestFirst(FIFOScheduler):
    """Gives a free actor to the newest waiting trial.

    Tune's own choice, the oldest, is the one whose actor is about to start; it would take the free actor and end the
    starting one, so that jobs shorter than the start of a process would run one at a time for ever. No more trials
    wait than there are slots, so none waits long.
    """

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.place: dict[str, int] = {}

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        self.place[trial.trial_id] = len(self.place)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:
        waiting = [trial for trial in tune_controller.get_live_trials() if trial.status == trial.PENDING]
        return max(waiting, key=lambda trial: self.place[trial.trial_id], default=None)


class _Watch(tune.Callback):
    """Tells the view which trials run."""

    def __init__(self, view: View) -> None:
        self.view = view

    def __getstate__(self) -> dict[str, Any]:
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **_: Any) -> None:
        self.view.started(trial.config["key"])


def connect(address: str | None, slots: int | None = None) -> None:
    """Join the Ray cluster at `address`, or start one on this machine, for loopback alone where Ray can.

    A local Ray has no dashboard and keeps Ray's token authentication. `slots` overrides its number of CPUs.
    """
    logging.getLogger("ray").setLevel(logging.ERROR)
    root = str(Path(__file__).resolve().parents[1])
    quiet: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR}
    paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {"env_vars": {"PYTHONPATH": os.pathsep.join(paths)}}
    if address is not None:
        ray.init(address=address, runtime_env=environment, **quiet)
        return
    ray.init(
        address="local",
        num_cpus=slots,
        include_dashboard=False,
        _node_ip_address="127.0.0.1",
        runtime_env=environment,
        **quiet,
    )


def disconnect() -> None:
    """Leave the cluster; a local one ends."""
    ray.shutdown()


def run(
    jobs: Mapping[str, Job],
    estimates: Mapping[str, float],
    context: Context,
    execute: Execute,
    on_failure: Callable[[Failure], None],
    view: View,
    retries: Retries,
) -> None:
    """Run `jobs` on the connected cluster until each is done, failed for good, or blocked by a failure.

    Raises ClusterLostError where no node of the cluster is left.
    """
    frontier = Frontier(jobs, estimates, retries)
    feed = _Feed(frontier, view, context, on_failure)
    trainable = tune.with_resources(tune.with_parameters(Trial, execute=execute), _placement)
    with tempfile.TemporaryDirectory(prefix="signsym-tune-") as scratch, view:
        tune.Tuner(
            trainable,
            tune_config=tune.TuneConfig(
                search_alg=ConcurrencyLimiter(feed, max_concurrent=_slots(jobs)),
                scheduler=_NewestFirst(),
                num_samples=-1,
                reuse_actors=True,
            ),
            run_config=tune.RunConfig(name="sweep", storage_path=scratch, verbose=0, callbacks=[_Watch(view)]),
        ).fit()
    if feed.lost:
        raise ClusterLostError("Ray's own processes died; what was finished is kept")


def _placement(config: dict[str, Any]) -> tune.PlacementGroupFactory:
    bundle = {"CPU": config["cpu"], "GPU": config["gpu"]}
    return tune.PlacementGroupFactory([{name: share for name, share in bundle.items() if share}])


def _slots(jobs: Mapping[str, Job]) -> int:
    """How many of the smallest jobs the cluster can run at once."""
    total = ray.cluster_resources()
    needs = {job.resources for job in jobs.values()}

    def fits(need: Resources) -> int:
        by_gpu = total.get("GPU", 0) / need.gpu if need.gpu else float("inf")
        return int(min(total.get("CPU", 1) / need.cpu, by_gpu))

    return max(1, *(fits(need) for need in needs))

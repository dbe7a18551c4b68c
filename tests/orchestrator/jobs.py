"""Runs jobs without science on a Ray of their own: `python jobs.py STORE JOBS GPUS CPUS [DEATHS]`.

JOBS is JSON: {key: {"gpu": ..., "cpu": ..., "parent": ..., "seconds": ..., "fails": ..., "group": ..., "meets": ...}};
a job that "meets" another ends when that one has been there too, and one that meets "warm" when a worker without a job
is ready. Each trial writes what it saw of its environment to
STORE/seen/<key>-<attempt>.json.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import threading
import time
from pathlib import Path

import ray
from ray import tune
from rich.console import Console

from orchestrator.engine import connection, schedule
from orchestrator.engine.controller import Controller
from orchestrator.engine.dispatch import Feed
from orchestrator.engine.frontier import Frontier
from orchestrator.engine.progress import ProgressDisplay
from orchestrator.engine.retries import Retries
from orchestrator.engine.trackers import Tracker
from orchestrator.jobs.job import Job, JobContext, Resources
from orchestrator.plan.packing import Packing
from orchestrator.store import Store
from orchestrator.store.claims import Claims
from orchestrator.store.events import Events

GIB = 2**30


def execute(key, spec, context):
    """Sleep, and tell what the trial saw; fail as the spec says."""
    began = time.time()
    store = Store(context.storage)
    tries = len([name for name in store.names("seen", ".json") if name.startswith(f"{key}-")])
    seen = {"gpu": os.environ.get("CUDA_VISIBLE_DEVICES"), "share": context.gpu_share, "pid": os.getpid()}
    ticks = int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
    booted = time.time() - float(Path("/proc/uptime").read_text().split()[0])
    seen["born"] = booted + ticks / os.sysconf("SC_CLK_TCK")
    seen |= {"halvings": context.halvings, "began": began}
    seen["environment"] = ray.get_runtime_context().runtime_env
    seen["root"] = os.environ["PYTHONPATH"].split(os.pathsep)[0]
    fails = spec.get("fails", {}).get(str(tries))
    if fails == "kill":
        store.write_json(f"seen/{key}-{tries}.json", seen | {"ended": time.time()})
        os.kill(os.getpid(), signal.SIGKILL)
    if fails == "exit":
        raise SystemExit(3)
    if fails == "unpicklable":
        return {"result": lambda: None, "lock": threading.Lock()}
    if fails == "hang":
        store.write(f"met/{key}", b"")
        store.write_json(f"seen/{key}-{tries}.json", seen | {"ended": time.time()})
        time.sleep(600)
    time.sleep(spec["seconds"])
    if spec.get("meets"):
        store.write(f"met/{key}", b"")
        while not store.exists([f"met/{spec['meets']}"]):
            time.sleep(0.05)
    store.write_json(f"seen/{key}-{tries}.json", seen | {"ended": time.time()})
    if fails == "memory":
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory")
    if fails == "fault":
        raise RuntimeError("CUDA error: device-side assert triggered")
    if fails == "error":
        raise ValueError("as the test wanted")
    store.write(f"results/{key}.parquet", b"")
    return spec.get("told")


class Warmed(Feed):
    """Says when a trial without a job has ended."""

    def on_trial_complete(self, trial_id, result=None, error=False):
        trial = self.trials[trial_id]
        super().on_trial_complete(trial_id, result, error)
        if trial.job is None:
            self.jobs.store.write("met/warm", b"")


class Away(tune.Callback):
    """A tracker that fails whenever a job ends."""

    def on_trial_complete(self, iteration, trials, trial, **info):
        raise ConnectionError("its server is away")


class Remembered:
    """The most trials that Tune knew of at once."""

    def __init__(self):
        self.most, step = 0, Controller.step

        def counted(controller):
            step(controller)
            self.most = max(self.most, len(controller._trials), len(controller._trial_metadata))

        Controller.step = counted


def main(folder, jobs, gpus, cpus, deaths="6"):
    """Run the jobs, each until so many deaths of its worker, and print how each ended and what Tune remembers."""
    remembered = Remembered()
    table = {}
    for key, given in json.loads(jobs).items():
        keep = {name: given[name] for name in ("gpu", "cpu", "minutes") if name in given}
        table[key] = Job(
            key=key,
            kind="finetune" if given.get("leads") else "attack",
            parents=tuple(filter(None, [given.get("parent")])),
            spec={"seconds": given.get("seconds", 0.2), "fails": given.get("fails", {})}
            | {name: given.get(name) for name in ("told", "meets")},
            resources=Resources(**keep),
            title=key,
            group=(given.get("group", "attack"),),
        )
    store = Store(folder)
    seconds = {key: float(job.spec["seconds"]) for key, job in table.items()}
    frontier = Frontier(table, seconds, Retries(backoff=0.1, deaths=int(deaths)))
    blamed = {}
    # Loopback alone where the caller gave this process a network of its own.
    connection.connect(None, slots=int(cpus), num_gpus=float(gpus))
    nowhere = Console(file=open(os.devnull, "w"))  # noqa: SIM115
    view = ProgressDisplay(table, seconds, nowhere)
    with Claims(store, view.trials) as claims, Events(store, claims.id, table) as events:
        record = lambda failure: blamed.__setitem__(failure["job"], failure["error"])  # noqa: E731
        feed = Warmed(frontier, Packing({}, gpus=float(gpus) > 0), claims, store, (view, events), record)
        feed.shares_gpus = "fault" in jobs
        context = JobContext(storage=folder, data_root="", git="", versions="", sign=claims.path)
        schedule.run(feed, context, execute, [Tracker(Away(), nowhere)])
    programs = sorted(ray._private.worker._global_node.all_processes)
    connection.disconnect()
    result = {"states": frontier.state, "blamed": blamed, "remembered": remembered.most, "programs": programs}
    print(json.dumps(result))


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
    main(*sys.argv[1:])

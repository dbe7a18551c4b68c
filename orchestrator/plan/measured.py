"""What a store's jobs took, as ratios to the estimate of these very jobs: what a plan multiplies its estimates by."""

from __future__ import annotations

import dataclasses
import functools
import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import numpy as np
import numpy.typing as npt

import signsym_core as ss
from orchestrator.jobs import keys
from orchestrator.jobs.job import Pace
from orchestrator.jobs.setting import task_of
from orchestrator.plan import cost
from orchestrator.plan.rates import Device
from orchestrator.plan.speeds import LEAST, Speeds
from signsym_core.arithmetic import Precision
from signsym_core.attacks import Attack
from signsym_core.attacks.base import Cost
from signsym_core.backbones import Backbone
from signsym_core.datasets import DataSource
from signsym_core.registry import rebuild


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobTime:
    """The time of one finished job."""

    pace: Pace
    seconds: float
    #: GPUs that it was given, 0 on a CPU, and when it ended, in seconds.
    share: float
    end: float
    #: The estimate for it as it was planned, and from the passes that it made.
    planned: float
    counted: float


def speeds(trained: Mapping[str, Mapping[str, Any]], attacked: Iterable[Mapping[str, Any]]) -> Speeds:
    """The speeds of finished trainings, by their keys, and attack jobs, with the fields of their records and rows."""
    jobs = [_training(record) for record in trained.values()]
    models = {key: record["spec"] for key, record in trained.items()}
    jobs += [_attacking(row, models[row["finetune_job"]]) for row in attacked if row["finetune_job"] in models]
    times = [job for job in jobs if job is not None]
    devices = Counter(job.pace[1] for job in times).most_common()
    return Speeds(ratios=ratios(times), devices=tuple(name for name, _ in devices))


def _training(record: Mapping[str, Any]) -> JobTime | None:
    """The time of a finished training; None where its device or its spec says too little."""
    spec, device = record["spec"], _device(record["device"])
    if device is None:
        return None
    try:
        dataset, backbone, settings = _setting(keys.canonical({name: spec[name] for name in _SETTING}))
        # The images that there really were.
        images = record["train_images"]
        dataset = dataclasses.replace(dataset, train_images=images) if images else dataset
        expected = cost.training(task_of(spec), backbone, dataset, settings, device)
    except (ValueError, KeyError, TypeError):
        return None
    pace = ("training", *_done_on(record, device), backbone.name, spec.get("rule", {}).get("name", "bp"))
    return _job_time(record, pace, expected, expected)


def _attacking(row: Mapping[str, Any], spec: Mapping[str, Any]) -> JobTime | None:
    """The time of a finished attack job on a model of this spec; None where too little is known.

    `row` is one of its rows of results, with the number of its epsilons `above` 0 and whether it has the `clean` one.
    """
    device, forwards = _device(row["device"]), row["forwards"]
    if device is None or row["seconds"] is None or forwards is None:
        return None
    try:
        dataset, backbone, _ = _setting(keys.canonical({name: spec[name] for name in _SETTING}))
        network = cost.network_at(backbone, dataset)
        attack = _attack(row["attack"], row["attack_params"])
        expected = cost.passes(attack, row["gradient"], row["above"], row["clean"])
    except (ValueError, KeyError, TypeError):
        return None
    n, gradients = max(1, row["n"]), row["backwards"]
    actual, pace = Cost((forwards - gradients) / n, gradients / n), _done_on(row, device)
    planned, needed = (cost.attacking(network, passes, n, pace[1], device) for passes in (expected, actual))
    return _job_time(row, ("attack", *pace, backbone.name, row["attack"]), planned, needed)


def _done_on(job: Mapping[str, Any], device: Device) -> tuple[str, Precision]:
    """Name of the device and precision; one that was not recorded yet was torch's default."""
    return _name(job["device"]), job["precision"] or ("tf32" if device.gpu else "float32")


def _job_time(job: Mapping[str, Any], pace: Pace, planned: float, counted: float) -> JobTime:
    end, share = _moment(job["finished_at"]), job["gpu_share"] or 0.0
    return JobTime(pace=pace, seconds=job["seconds"], share=share, end=end, planned=planned, counted=counted)


def ratios(jobs: Sequence[JobTime]) -> dict[Pace, float]:
    """Measured over estimated seconds by pace and by its beginnings, each a median in which long jobs weigh more.

    Under its whole pace an attack is compared with what was planned, lost images included; under a shorter one with
    the passes that it made, which say how fast the device is.
    """
    compared: dict[Pace, list[tuple[float, float]]] = {}
    for job, seconds in zip(jobs, _undisturbed(jobs), strict=True):
        for length in range(LEAST, len(job.pace) + 1):
            estimate = job.planned if length == len(job.pace) else job.counted
            compared.setdefault(job.pace[:length], []).append((seconds / estimate, estimate))
    return {pace: _median(pairs) for pace, pairs in compared.items()}


def _undisturbed(jobs: Sequence[JobTime]) -> npt.NDArray[np.float64]:
    """Seconds that each job would have taken alone: on a shared GPU its part of what ran there meanwhile.

    A job is taken to have its share of what was given to all jobs that ran at the time, of one GPU at least.
    """
    seconds = np.array([job.seconds for job in jobs], dtype=np.float64)
    shares = np.array([job.share for job in jobs], dtype=np.float64)
    ends = np.array([job.end for job in jobs], dtype=np.float64)
    shared = (shares > 0) & (shares < 1) & np.isfinite(ends) & (seconds > 0)
    if not shared.any():
        return seconds
    starts = ends - seconds
    # The sum of shares changes at every start and end; the integral of its inverse is linear in between.
    times = np.concatenate([starts[shared], ends[shared]])
    order = np.argsort(times)
    times = times[order]
    total_share = np.concatenate([shares[shared], -shares[shared]])[order].cumsum()[:-1]
    inverse = np.where(total_share > 1e-6, 1 / np.clip(total_share, 1e-6, 1.0), 0.0)
    integral = np.concatenate([[0.0], (inverse * np.diff(times)).cumsum()])
    seconds[shared] = shares[shared] * (
        np.interp(ends[shared], times, integral) - np.interp(starts[shared], times, integral)
    )
    return seconds


def _median(pairs: Sequence[tuple[float, float]]) -> float:
    """The median of values with weights."""
    values, weights = np.array(sorted(pairs)).T
    total = weights.cumsum()
    return float(values[np.searchsorted(total, total[-1] / 2)])


def _moment(when: str | datetime | None) -> float:
    if when is None:
        return float("nan")
    return (datetime.fromisoformat(when) if isinstance(when, str) else when).timestamp()


def _name(device: str) -> str:
    return "cpu" if device.startswith("cpu") else device


def _device(name: str | None) -> Device | None:
    """The device of a record: the name of a GPU, or "cpu x " and the number of threads."""
    if name is None:
        return None
    threads = name.removeprefix("cpu x ")
    return Device(gpu=False, cores=float(threads)) if threads.isdecimal() else Device(gpu=_name(name) != "cpu")


_SETTING = ("dataset", "backbone", "finetune")


@functools.lru_cache(maxsize=4096)
def _setting(described: str) -> tuple[DataSource, Backbone, ss.FineTune]:
    spec = json.loads(described)
    settings = rebuild(ss.FineTune, "finetune", spec["finetune"])
    return ss.DATASETS.rebuild(spec["dataset"]), ss.BACKBONES.rebuild(spec["backbone"]), settings


@functools.lru_cache(maxsize=4096)
def _attack(name: str, parameters: str) -> Attack:
    return ss.ATTACKS.rebuild({"name": name, "parameters": json.loads(parameters)})

"""Jobs as plain values, without torch, so that the driver's process stays small."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

#: The kinds of jobs, in the order in which a model goes through them.
Stage = Literal["pretrain", "finetune", "attack"]
STAGES: tuple[Stage, ...] = ("pretrain", "finetune", "attack")

#: One cell of an attack job: gradient, epsilon and the epsilon's label.
Point = tuple[str, float, str]

#: Jobs that take about the same multiple of their estimate: "training" or "attack", device, precision, backbone, and
#: the name of the rule or of the attack.
Pace = tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """The GPUs and CPUs of a job, and its time limit."""

    #: A whole number of GPUs, a fraction below 1, or "auto": as small a share as measured memory allows.
    gpu: float | Literal["auto"] = 0.0
    cpu: float = 1.0
    #: Ray's name of the kind of GPU, such as "H200"; None: any.
    accelerator_type: str | None = None
    #: A job that runs longer counts as failed.
    minutes: float = 24 * 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The unit of scheduling. `spec` is plain JSON: everything that the job's outcome depends on."""

    key: str
    kind: Stage
    #: Keys of the jobs whose models this one needs.
    parents: tuple[str, ...]
    spec: Mapping[str, Any]
    resources: Resources
    #: The name for people: "finetune usf resnet18 cifar10 seed 0".
    title: str
    #: Jobs that should take equally long: kind, backbone, data set and, for an attack, its name.
    group: tuple[str, ...]
    #: Estimated seconds, to be multiplied by what jobs of its pace were measured to take; its device is "cpu", or the
    #: kind of GPU that it asks for, or "" for any.
    default_seconds: float = 60.0
    pace: Pace = ()
    #: Seconds more for decoding images that no job before it decodes.
    loading: float = 0.0
    #: Estimated bytes of its tensors on a GPU, until a job of its group was measured; 0: unknown.
    memory: float = 0.0
    #: Position in the grid of the first experiment that contains it.
    experiment: int = 0

    @property
    def results(self) -> str:
        """The file of the store that marks the job as done."""
        return f"results/{self.key}.parquet" if self.kind == "attack" else f"models/{self.key}/record.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JobContext:
    """Where a job reads and writes, and the provenance that it stores with its numbers."""

    storage: str
    data_root: str
    #: Commit of the code, and versions of the libraries as JSON.
    git: str
    versions: str
    #: The sweep's heartbeat file below the store: a worker that cannot read it sees another store.
    sign: str | None = None
    #: How often this job ran out of memory, which halves its micro-batch each time; and its GPUs.
    halvings: int = 0
    gpu_share: float = 0.0


#: The function that a trial calls: (job key, job spec, context); returns numbers for the progress display.
Execute = Callable[[str, dict[str, Any], JobContext], dict[str, float] | None]

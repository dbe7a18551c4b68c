"""Jobs as all that schedules them sees them: plain values, without torch, so that a driver stays small."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, Literal

#: The kinds of jobs, in the order in which a model goes through them.
Stage = Literal["pretrain", "finetune", "attack"]
STAGES: tuple[Stage, ...] = ("pretrain", "finetune", "attack")

#: One cell of an attack job: gradient, epsilon and the epsilon's label.
Point = tuple[str, float, str]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Resources:
    """What a job is given, and for how long."""

    #: A whole number of GPUs, a fraction below 1, or "auto": as small a share as measured memory allows.
    gpu: float | Literal["auto"] = 0.0
    cpu: float = 1.0
    #: Ray's name of the kind of GPU, such as "H200"; None: any.
    accelerator_type: str | None = None
    #: A job that runs longer counts as failed.
    minutes: float = 24 * 60.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Job:
    """The unit of scheduling. `spec` is plain JSON: all that the job's outcome depends on, and all that it needs."""

    key: str
    kind: Stage
    #: Keys of the jobs whose models this one needs.
    parents: tuple[str, ...]
    spec: Mapping[str, Any]
    resources: Resources
    #: How people call it: "finetune usf resnet18 cifar10 seed 0".
    title: str
    #: Jobs that should take equally long: kind, backbone, data set and, for an attack, its name.
    group: tuple[str, ...]
    #: Stated seconds, for where nothing like it was measured yet.
    guess: float = 60.0
    #: Estimated bytes of its tensors on a GPU, for where nothing like it was measured yet; 0: not known.
    memory: float = 0.0
    #: Position in the grid of the experiment that asked for it first.
    experiment: int = 0

    @property
    def results(self) -> str:
        """The file below the store that says that the job is done."""
        return f"results/{self.key}.parquet" if self.kind == "attack" else f"models/{self.key}/record.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Context:
    """Where a job reads and writes, and what is written beside its numbers."""

    storage: str
    data_root: str
    #: Commit of the code, and versions of the libraries as JSON.
    git: str
    versions: str
    #: The sweep's sign of life below the store: a worker that does not find it has another store before it.
    sign: str | None = None
    #: How often this job ran out of memory; its micro-batch is halved as often. And the GPUs that it was given.
    halvings: int = 0
    gpu_share: float = 0.0


#: What a trial calls: (job key, job spec, context); returns numbers about the job, for people who watch.
Execute = Callable[[str, dict[str, Any], Context], dict[str, float] | None]

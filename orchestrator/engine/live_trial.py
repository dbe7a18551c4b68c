"""What the driver knows of a trial from the choice of its job to its end, also beside one that faulted their GPU.

CUDA's Multi-Process Service loses the contexts of all processes on a GPU with that of one that faulted it: their jobs
fail too, or hang in a kernel that never ends. So the controller ends the other workers, and only the first is blamed.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from orchestrator.engine.room import Bundle


@dataclasses.dataclass
class LiveTrial:
    """A trial that has not ended."""

    #: The key of its job; None: its worker starts early, for jobs that wait for others.
    job: str | None
    #: The resources that it requests.
    bundle: Bundle
    #: Whether a worker has taken it.
    begun: bool = False
    #: How many processes this machine's kernel had killed for lack of memory when it began.
    kills: float = math.inf
    #: What its worker reported before it ended itself.
    report: dict[str, Any] = dataclasses.field(default_factory=dict)
    #: Ray's account of its worker's end, as a report.
    death: dict[str, Any] = dataclasses.field(default_factory=dict)
    #: Whether its worker was ended because a trial beside it had faulted their GPU.
    beside_fault: bool = False


#: Why a trial ends whose neighbour faulted: it says nothing about its job.
BESIDE = "ended because a job beside it faulted the GPU that they share by CUDA's Multi-Process Service"


def faulted(report: Mapping[str, Any]) -> bool:
    """Whether a trial with this report has left its GPU's context broken."""
    return report.get("cause") == "error" and "CUDA error" in report["error"]


def report_beside_fault(trial: LiveTrial, report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a trial that failed beside a fault: without blame, unless it failed for a reason of its own."""
    if "error" in report and not faulted(report):
        return dict(report)
    return {"cause": "node", "error": BESIDE, "traceback": str((trial.death or report).get("traceback", ""))}

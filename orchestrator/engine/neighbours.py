"""Trials that share a GPU by CUDA's Multi-Process Service, where one has faulted it.

The service loses the contexts of all processes on the GPU with that of the one that faulted: their jobs fail too, or
hang in a kernel that never ends. So the controller ends the other workers, and only the first is blamed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from orchestrator.engine.live_trial import LiveTrial

#: Why a trial ends whose neighbour faulted: it says nothing about its job.
BESIDE = "ended because a job beside it faulted the GPU that they share by CUDA's Multi-Process Service"


def faulted(report: Mapping[str, Any]) -> bool:
    """Whether a trial with this report has left its GPU's context broken."""
    return report.get("cause") == "error" and "CUDA error" in report["error"]


def report_of(trial: LiveTrial, report: Mapping[str, Any]) -> dict[str, Any]:
    """The report of a trial that failed beside a fault: without blame, unless it failed for a reason of its own."""
    if "error" in report and not faulted(report):
        return dict(report)
    return {"cause": "node", "error": BESIDE, "traceback": str((trial.death or report).get("traceback", ""))}

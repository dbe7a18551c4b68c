"""Why a job may fail, and how often it is tried again."""

from __future__ import annotations

import dataclasses
from typing import Literal

#: Why a job failed: its own code, an error that its machine has each time, its time limit, the device's memory, a store
#: that cannot be read or written, a disk that is full, its worker's death, the memory of the worker's host, or the loss
#: of the worker's node.
Cause = Literal["error", "lasting", "time", "memory", "store", "disk", "death", "host memory", "node"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Retries:
    """How often a failed job is retried.

    Each cause has its own count. An error or a passed time limit is likely to repeat; what a machine has each time,
    such as data that it lacks, is tried once more where another machine may have them, and else not; a dead worker may
    have been killed for any reason, also for lack of memory on its host; after running out of the device's memory a job
    is retried with half the micro-batch, down to one image; a lost node says nothing about the job. The wait before a
    retry doubles with each attempt.
    """

    attempts: int = 3
    deaths: int = 6
    halvings: int = 8
    nodes: int = 50
    #: Seconds before the second attempt, and at most.
    backoff: float = 1.0
    longest: float = 30.0

    def allowed(self, cause: Cause, machines: int = 1) -> int:
        """The number of failures from this cause at which a job has failed for good, on so many machines."""
        if cause == "lasting":
            return min(self.attempts, machines, 2)
        limits = {"memory": self.halvings + 1, "death": self.deaths, "host memory": self.deaths, "node": self.nodes}
        return limits.get(cause, self.attempts)

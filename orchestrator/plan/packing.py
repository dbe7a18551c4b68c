"""The share of a GPU of each job: a pure function of the measured memory of jobs of the same kind.

Ray only counts shares; the trial also limits its process's memory by it (`orchestrator.engine.trial`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.jobs.job import Job

#: Safety factor on a measured peak: memory is fragmented, and jobs of a kind differ a little.
MARGIN = 1.3
#: Bytes that a process uses on a GPU beside its tensors: CUDA's context and its libraries' kernels.
PROCESS = 750 * 2**20
#: Safety factor on an estimated peak, and the assumed bytes of a GPU before a trial has reported its size.
DOUBT, SMALL_GPU = 2.0, 16 * 2**30
#: Allowed numbers of trials per GPU: few values, because a worker is reused only for an equal share.
PER_GPU = (16, 12, 8, 6, 4, 3, 2, 1)
#: Ray keeps shares with four decimals.
_RESOLUTION = 10_000

#: Peak bytes of a job's tensors and the bytes that its GPU has.
Memory = tuple[int, int]


class Packing:
    """The shares of a sweep's jobs, updated by measurements while it runs.

    A job with a stated number of GPUs gets it. Under "auto" a job gets the smallest share that holds the largest peak
    of its kind so far, with a margin; before one of its kind was measured, the share that its estimate needs of a small
    GPU; and without an estimate one GPU. A job that ran out of memory with a share is retried with twice the share.
    """

    def __init__(self, measured: Mapping[tuple[str, ...], Memory], gpus: bool) -> None:
        self.gpus = gpus
        self._need: dict[tuple[str, ...], float] = {}
        for group, memory in measured.items():
            self.observe(group, *memory)

    def observe(self, group: tuple[str, ...], peak: int, total: int) -> None:
        """Record a peak of `peak` bytes of tensors of a job of the kind `group`, on a GPU of `total` bytes."""
        if peak > 0 and total > 0:
            need = (peak * MARGIN + PROCESS) / total
            self._need[group] = max(need, self._need.get(group, 0.0))

    def share(self, job: Job, halvings: int) -> float:
        """The GPUs that the job gets when it has run out of memory `halvings` times."""
        if job.resources.gpu != "auto":
            share = job.resources.gpu
        elif self.gpus:
            share = smallest_share(self._need.get(job.group) or _estimated(job.memory))
        else:
            share = 0.0
        if 0 < share < 1:
            # Doubled for each time that the job ran out of memory, up to one GPU.
            share = min(1.0, share * 2**halvings)
        return share


def _estimated(memory: float) -> float:
    return (memory * DOUBT + PROCESS) / SMALL_GPU if memory else 1.0


def smallest_share(need: float) -> float:
    """The smallest share 1 / n with n in PER_GPU that is at least `need`, a fraction of a GPU."""
    for count in PER_GPU:
        share = math.floor(_RESOLUTION / count) / _RESOLUTION
        if share >= need:
            return share
    return 1.0

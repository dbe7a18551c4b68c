"""How large a share of a GPU each job is given: pure, from the memory that jobs of the same kind were measured to need.

A share is bookkeeping of Ray's; the trial bounds its process's memory by it as well (`orchestrator.engine.trial`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from orchestrator.jobs.job import Job

#: A job's peak is multiplied by this: memory is fragmented, and no two jobs of a kind are quite alike.
MARGIN = 1.3
#: Bytes that a process needs on a GPU beside its tensors: CUDA's context and its libraries' kernels.
PROCESS = 750 * 2**20
#: An estimate of a peak is multiplied by this, and held against a GPU of so many bytes, since nobody has told yet how
#: many there are.
DOUBT, SMALL_GPU = 2.0, 16 * 2**30
#: Numbers of trials that share a GPU. Few of them, because a worker is only used again for an equal share.
PER_GPU = (16, 12, 8, 6, 4, 3, 2, 1)
#: Ray keeps shares with four decimals.
_RESOLUTION = 10_000

#: Peak bytes of a job's tensors and the bytes that its GPU has.
Memory = tuple[int, int]


class Packing:
    """The shares of a sweep's jobs, which follow what is measured while it runs.

    A job with a whole number of GPUs gets them. Under "auto" a job gets the smallest share that holds the largest peak
    of its kind so far, with a margin; before one of the kind has been measured, what its estimate asks of a small GPU,
    and without an estimate a GPU for itself. Whatever share a job ran out of memory with, its retry gets a larger one.
    """

    def __init__(self, measured: Mapping[tuple[str, ...], Memory], gpus: bool) -> None:
        self.gpus = gpus
        self._need: dict[tuple[str, ...], float] = {}
        for group, memory in measured.items():
            self.observe(group, *memory)

    def observe(self, group: tuple[str, ...], peak: int, total: int) -> None:
        """A job of the kind `group` had `peak` bytes of tensors at most, on a GPU of `total` bytes."""
        if peak > 0 and total > 0:
            need = (peak * MARGIN + PROCESS) / total
            self._need[group] = max(need, self._need.get(group, 0.0))

    def share(self, job: Job, halvings: int) -> float:
        """The GPUs that the job gets when it has run out of memory `halvings` times."""
        if job.resources.gpu != "auto":
            asked = job.resources.gpu
        elif self.gpus:
            asked = smallest_share(self._need.get(job.group) or _estimated(job.memory))
        else:
            asked = 0.0
        if 0 < asked < 1:
            # Doubled, so that the retry has room for what did not fit; a share is of one GPU at most.
            asked = min(1.0, asked * 2**halvings)
        return asked


def _estimated(memory: float) -> float:
    return (memory * DOUBT + PROCESS) / SMALL_GPU if memory else 1.0


def smallest_share(need: float) -> float:
    """The smallest share 1 / n with n in PER_GPU that is at least `need`, the part of a GPU that is needed."""
    for count in PER_GPU:
        share = math.floor(_RESOLUTION / count) / _RESOLUTION
        if share >= need:
            return share
    return 1.0

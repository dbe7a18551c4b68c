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
#: Safety factor on an estimated peak, and the assumed bytes of a GPU of unknown size.
DOUBT, SMALL_GPU = 2.0, 16 * 2**30
#: Most trials on one GPU: where their kernels run at once (`orchestrator.engine.gpus`), and where they take turns. Then
#: one trial fills the GPU, and more of them only load, save and start meanwhile.
MOST_AT_ONCE, MOST_IN_TURNS = 8, 4
#: Allowed numbers of trials per GPU: few values, because a worker is reused only for an equal share.
PER_GPU = (8, 6, 4, 3, 2, 1)
#: Ray keeps shares with four decimals.
_RESOLUTION = 10_000

#: Peak bytes of a job's tensors and the bytes that its GPU has.
Memory = tuple[int, int]


class Packing:
    """The shares of a sweep's jobs, updated by measurements while it runs.

    A job with a stated number of GPUs gets it. Under "auto" a job gets the smallest share that holds the largest peak
    of its kind so far, with a margin; before one of its kind was measured, the share that its estimate needs of a GPU
    of `total` bytes, or of a small one; and without an estimate one GPU. No more than `most` trials share a GPU: beyond
    that they do not get more done together, and equal shares let a worker go on with a job of another kind. A job that
    ran out of memory with a share is retried with twice the share.
    """

    def __init__(
        self,
        measured: Mapping[tuple[str, ...], Memory],
        gpus: bool,
        total: int | None = None,
        most: int = MOST_IN_TURNS,
    ) -> None:
        self.gpus, self.total, self.most = gpus, total, most
        self._need: dict[tuple[str, ...], float] = {}
        for group, memory in measured.items():
            self.observe(group, *memory)

    def observe(self, group: tuple[str, ...], peak: int, total: int) -> None:
        """Record a peak of `peak` bytes of tensors of a job of the kind `group`, on a GPU of `total` bytes."""
        if peak > 0 and total > 0:
            self.total = total if self.total is None else min(self.total, total)
            need = (peak * MARGIN + PROCESS) / total
            self._need[group] = max(need, self._need.get(group, 0.0))

    def share(self, job: Job, halvings: int) -> float:
        """The GPUs that the job gets when it has run out of memory `halvings` times."""
        if job.resources.gpu != "auto":
            share = job.resources.gpu
        elif self.gpus:
            need = self._need.get(job.group) or self._estimated(job.memory)
            share = smallest_share(need, self.most)
        else:
            share = 0.0
        if 0 < share < 1:
            # Doubled for each time that the job ran out of memory, up to one GPU.
            share = min(1.0, share * 2**halvings)
        return share

    def _estimated(self, memory: float) -> float:
        return (memory * DOUBT + PROCESS) / (self.total or SMALL_GPU) if memory else 1.0


def smallest_share(need: float, most: int) -> float:
    """The smallest share 1 / n with n in PER_GPU, at most `most`, that is at least `need`, a fraction of a GPU."""
    for count in PER_GPU:
        share = math.floor(_RESOLUTION / count) / _RESOLUTION
        if count <= most and share >= need:
            return share
    return 1.0

"""An estimate of the time that a sweep still takes, from what its finished jobs took."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from statistics import median

from orchestrator.jobs.job import Job


class TimeLeft:
    """The remaining jobs' time divided by the number of slots, the most trials that ran at once.

    A job counts with its estimate, times the median ratio of measured to estimated seconds: that of its kind where this
    sweep has measured it, else the median over kinds. The first job of each slot is not measured, since it includes the
    start of its worker. There is no estimate until kinds with half of the remaining seconds were measured.
    """

    def __init__(self, jobs: Mapping[str, Job], seconds: Mapping[str, float]) -> None:
        self._jobs, self._seconds = jobs, seconds
        #: By kind of job: how many are left, their estimated seconds, and of finished ones the ratios of the seconds
        #: that they took to the estimate.
        self._left = Counter(job.group for job in jobs.values())
        self._estimated: dict[tuple[str, ...], float] = dict.fromkeys(self._left, 0.0)
        for key, job in jobs.items():
            self._estimated[job.group] += seconds[key]
        self._ratios: dict[tuple[str, ...], list[float]] = {}
        self.slots = 1

    def started(self, running: int) -> None:
        """A trial began; so many run now."""
        self.slots = max(self.slots, running)

    def measured(self, key: str, seconds: float) -> None:
        """A job that was not the first of its slot took so long."""
        self._ratios.setdefault(self._jobs[key].group, []).append(seconds / max(self._seconds[key], 1e-3))

    def removed(self, key: str) -> None:
        """The job is not among those that are left any more."""
        group = self._jobs[key].group
        self._left[group] -= 1
        self._estimated[group] -= self._seconds[key]

    @property
    def seconds(self) -> float | None:
        """Estimated seconds until the end; None before enough kinds of jobs were measured."""
        estimated = {group: max(0.0, self._estimated[group]) for group, count in self._left.items() if count > 0}
        measured = sum(seconds for group, seconds in estimated.items() if group in self._ratios)
        if not self._ratios or measured < sum(estimated.values()) / 2:
            return None
        slower = {group: median(ratios) for group, ratios in self._ratios.items()}
        usual = median(slower.values())
        return sum(seconds * slower.get(group, usual) for group, seconds in estimated.items()) / self.slots

"""Workers that start before there is a job for them: while the first jobs run, for those that wait for these.

A worker loads for some ten seconds before its first job, and would load while the device is idle. A trial without a job
starts it (`orchestrator.work.warm_up`); afterwards it is one of Tune's idle workers.
"""

from __future__ import annotations

from collections.abc import Collection

from orchestrator.engine.frontier import Frontier
from orchestrator.engine.live_trial import LiveTrial
from orchestrator.engine.room import Bundle, Room
from orchestrator.jobs.job import Job


class EarlyWorkers:
    """Decides when one more starts, for which job's resources, and whether workers without a job stay."""

    def __init__(self, frontier: Frontier, room: Room) -> None:
        self.frontier, self.room = frontier, room
        #: What the trials without a job have requested, also those that have ended: their workers are idle.
        self.bundles: list[Bundle] = []
        #: Whether a job has ended. From then on its worker is there for the next, and idle ones take all trials.
        self.over = False

    def next(self, trials: Collection[LiveTrial]) -> Job | None:
        """The job whose resources a trial without a job may request beside the live `trials`.

        None beside jobs that have not begun: these would take the worker.
        """
        if self.over or not self.needed(trials) or any(not trial.begun and trial.job is not None for trial in trials):
            return None
        running = [trial.bundle for trial in trials if trial.job is not None]
        waiting = self.frontier.counts["waiting"]
        if len(self.bundles) >= waiting or self.room.full([*running, *self.bundles]):
            return None
        return self.frontier.first_waiting()

    def needed(self, trials: Collection[LiveTrial]) -> bool:
        """Whether there are jobs that will begin. Only on this machine: on a cluster an idle worker keeps its node."""
        to_come = self.frontier.counts["waiting"] + self.frontier.counts["ready"] > 0
        return not self.room.autoscaled and (to_come or any(not trial.begun for trial in trials))

"""The room on the cluster's nodes: how many trials fit, as it was last read, and which nodes an autoscaler adds."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable

from orchestrator.engine import cluster
from orchestrator.engine.frontier import Frontier
from orchestrator.jobs.job import Job
from orchestrator.plan.packing import Packing

#: Seconds between two reads of the cluster's resources.
LOOK = 5.0
#: Most jobs for which an autoscaler is asked to provide nodes at once.
DEMAND = 1000

#: The resources that a trial requests of one node: Ray's names and amounts.
Bundle = tuple[tuple[str, float], ...]


class Room:
    """The room for a frontier's jobs with their shares of GPUs."""

    def __init__(self, frontier: Frontier, packing: Packing, autoscaled: bool) -> None:
        self.frontier, self.packing, self.autoscaled = frontier, packing, autoscaled
        #: Most trials that can run at once.
        self.slots = 1
        self._nodes: list[dict[str, float]] = []
        self._fitting: dict[Bundle, int] = {}
        self._looked = float("-inf")

    @property
    def machines(self) -> int:
        """How many machines may run a job, as far as is known: a cluster of one may get another."""
        return max(1 + self.autoscaled, len(self._nodes))

    def look(self) -> None:
        """Read the nodes of the cluster, if that was not just done, and tell its autoscaler which jobs can start."""
        if time.monotonic() - self._looked < LOOK:
            return
        self._looked = time.monotonic()
        self._nodes = cluster.nodes()
        self._fitting.clear()
        bundles = [self.bundle(job) for job in itertools.islice(self.frontier.startable(), DEMAND)]
        self.slots = max([1, *(self._fits(bundle) for bundle in {tuple(bundle.items()) for bundle in bundles})])
        if self.autoscaled:
            cluster.request(bundles)

    def release(self) -> None:
        """Tell the autoscaler that the nodes that were requested may go."""
        if self.autoscaled:
            cluster.request([])

    def bundle(self, job: Job) -> dict[str, float]:
        """The resources that the job's next trial requests."""
        share = self.packing.share(job, self.frontier.halvings(job.key))
        return cluster.bundle(share, job.resources.cpu, job.resources.accelerator_type)

    def full(self, running: Iterable[Bundle]) -> bool:
        """Whether trials with these resources leave no room for another."""
        return sum(1 / self._fits(bundle) for bundle in running) > 1 - 1e-9

    def _fits(self, bundle: Bundle) -> int:
        """How many such trials fit on the present nodes at once; at least 1, since a missing node may still join."""
        if bundle not in self._fitting:
            self._fitting[bundle] = max(1, cluster.fits(self._nodes, dict(bundle)))
        return self._fitting[bundle]

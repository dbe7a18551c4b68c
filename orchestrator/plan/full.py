"""The plan of a grid for an empty store, and from it the plan for a store where some jobs are done.

Both are plain values without torch: what a grid's jobs are takes seconds to find out, what is left of them does not.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Set
from typing import Any

from orchestrator.gridfile.callbacks import CallbackChoice
from orchestrator.jobs import keys
from orchestrator.jobs.job import Job, Point


class PlanError(ValueError):
    """A valid grid that cannot be run."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """The jobs that a grid needs and the store lacks, parents before children, and all cells and fine-tunes."""

    grid: str
    #: The names of the grid's experiments.
    experiments: tuple[str, ...]
    jobs: Mapping[str, Job]
    #: Keys of all cells of the grid, and of those that the store holds.
    cells: Set[str]
    done: Set[str]
    #: Keys of all fine-tunes of the grid, done or not.
    finetunes: Set[str]

    @property
    def missing(self) -> int:
        """Number of cells without a result."""
        return len(self.cells) - len(self.done)


@dataclasses.dataclass(frozen=True, kw_only=True)
class AttackCells:
    """The cells of an attack job, and what it takes where only some of them are left."""

    #: The key of each cell, in the order of the points in the job's spec.
    cells: tuple[str, ...]
    #: Estimated seconds: [whether epsilon 0 is left][number of epsilons above 0 that are left].
    seconds: tuple[tuple[float, ...], ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullPlan:
    """Every job of a grid, as if nothing were done, parents before children."""

    grid: str
    experiments: tuple[str, ...]
    callbacks: tuple[CallbackChoice, ...]
    #: What the grid asks for in vain.
    notices: tuple[str, ...]
    #: By key. Each training has the seconds of decoding its images, as if no other job decoded them.
    jobs: Mapping[str, Job]
    #: For each attack job its cells.
    attacks: Mapping[str, AttackCells]
    #: Keys of all fine-tunes, and of the trainings whose models need codes for retrieval.
    finetunes: Set[str]
    retrieving: Set[str]

    @functools.cached_property
    def cells(self) -> Set[str]:
        """Keys of all cells."""
        return frozenset(cell for attack in self.attacks.values() for cell in attack.cells)

    def left(self, done_cells: Set[str], done_models: Set[str]) -> Plan:
        """The plan for a store that holds `done_cells` and `done_models`."""
        attacks, needed = dict[str, Job](), set[str]()
        shared: dict[tuple[Point, ...], tuple[Point, ...]] = {}
        for key, attack in self.attacks.items():
            if (job := _left(self.jobs[key], attack, done_cells, shared)) is not None:
                attacks[key] = job
                self._need(job, done_models, needed)
        jobs, decoded = dict[str, Job](), set[str]()
        for key, job in self.jobs.items():
            if key in attacks:
                jobs[attacks[key].key] = attacks[key]
            elif key in needed:
                dataset = keys.canonical(job.spec["dataset"])
                jobs[key] = dataclasses.replace(job, loading=0.0) if dataset in decoded else job
                decoded.add(dataset)
        return Plan(
            grid=self.grid,
            experiments=self.experiments,
            jobs=jobs,
            cells=self.cells,
            done=self.cells & done_cells,
            finetunes=self.finetunes,
        )

    def _need(self, job: Job, done_models: Set[str], needed: set[str]) -> None:
        """Add the trainings that a job waits for, unless they are done; what is before a done one is not needed."""
        for parent in job.parents:
            if parent not in done_models and parent not in needed:
                needed.add(parent)
                self._need(self.jobs[parent], done_models, needed)


def _left(
    job: Job, attack: AttackCells, done: Set[str], shared: dict[tuple[Point, ...], tuple[Point, ...]]
) -> Job | None:
    """The job on its cells that are not done; None where all are. Equal points of all jobs are one object."""
    left = [position for position, cell in enumerate(attack.cells) if cell not in done]
    if len(left) in (0, len(attack.cells)):
        return job if left else None
    points = tuple(job.spec["points"][position] for position in left)
    spec: dict[str, Any] = {name: value for name, value in job.spec.items() if name != "points"}
    return dataclasses.replace(
        job,
        key=attack_key(spec, [attack.cells[position] for position in left]),
        spec=spec | {"points": shared.setdefault(points, points)},
        default_seconds=seconds_of(attack.seconds, points),
    )


def attack_key(spec: Mapping[str, Any], cells: list[str]) -> str:
    """The key of the attack job that computes these cells; `spec` is without its points."""
    return keys.key({**spec, "cells": sorted(cells)})


def seconds_of(seconds: tuple[tuple[float, ...], ...], points: tuple[Point, ...]) -> float:
    """The entry of `AttackCells.seconds` for these points."""
    epsilons = {epsilon for _, epsilon, _ in points}
    above = sum(epsilon > 0 for epsilon in epsilons)
    return seconds[len(epsilons) > above][above]

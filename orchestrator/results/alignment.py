"""The alignment of trainings as pages show it: the rows of one, and the mean angle of B to W of all."""

from __future__ import annotations

import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import pyarrow as pa

from orchestrator.store import merged
from orchestrator.store.alignment import alignment_folder, iter_trainings, may_have
from orchestrator.store.files import Files


class Alignment:
    """The alignment of the trainings of a store, read when a page needs it."""

    def __init__(self, store: Files) -> None:
        self._store = store
        self._folder = alignment_folder(store, ("job", "epoch", "angle"))
        self._lock = threading.Lock()
        #: For each file that was read the mean angle of each of its trainings by epoch; none where no matrix stands
        #: for W.
        self._angles: dict[str, dict[str, dict[int, float]]] = {}

    @property
    def skipped(self) -> dict[str, str]:
        """Files that could not be read, with the reason."""
        return self._folder.skipped

    def rows(self, job: str) -> list[dict[str, Any]]:
        """The rows of one training; empty where it has none."""
        return self.by_training([job]).get(job, [])

    def by_training(self, jobs: Collection[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of those of some trainings that have any, by their keys."""
        by_job: dict[str, list[dict[str, Any]]] = {}
        for table in iter_trainings(alignment_folder(self._store), jobs):
            for row in table.to_pylist():
                by_job.setdefault(row["job"], []).append(row)
        return by_job

    def angles(self, epochs: Mapping[str, int | None]) -> Mapping[str, float]:
        """The angle of B to W in degrees, mean over layers, of those of some trainings that have one.

        Each is that of an epoch of the training, or of its last one for None. Layers without a matrix that stands for W
        are left out.
        """
        with self._lock:
            for present in self._folder.listings():
                # What is gone was merged, and may come again with other rows.
                self._angles = {name: self._angles[name] for name in present if name in self._angles}
                names = [name for name in present if may_have(self._store, name, epochs)]
                for batch in self._folder.batches(name for name in names if name not in self._angles):
                    self._angles |= {name: _means(table) for name, table in self._folder.read(batch).items()}
            # A training's own file counts more than a merged one: see `store.alignment`.
            order = sorted(set(names) & set(self._angles), key=lambda name: not merged.is_merged(name))
            by_job = {job: by_epoch for name in order for job, by_epoch in self._angles[name].items()}
        known = {job: (by_job[job], epoch) for job, epoch in epochs.items() if by_job.get(job)}
        return {
            job: by_epoch[max(by_epoch) if epoch is None else epoch]
            for job, (by_epoch, epoch) in known.items()
            if epoch is None or epoch in by_epoch
        }


class JoinedAlignment:
    """The alignment of the trainings of several stores: a training that two of them have is that of the first."""

    def __init__(self, alignments: Sequence[Alignment]) -> None:
        self._alignments = alignments

    def rows(self, job: str) -> list[dict[str, Any]]:
        """The rows of one training; empty where it has none."""
        return self.by_training([job]).get(job, [])

    def by_training(self, jobs: Collection[str]) -> dict[str, list[dict[str, Any]]]:
        """The rows of some trainings by their keys, see `Alignment.by_training`."""
        tables = (alignment.by_training(jobs) for alignment in reversed(self._alignments))
        return {job: rows for by_job in tables for job, rows in by_job.items()}

    def angles(self, epochs: Mapping[str, int | None]) -> Mapping[str, float]:
        """The angle of B to W of trainings, see `Alignment.angles`."""
        found = [alignment.angles(epochs) for alignment in reversed(self._alignments)]
        return {job: angle for by_job in found for job, angle in by_job.items()}


def _means(table: pa.Table) -> dict[str, dict[int, float]]:
    columns = (table[name].to_pylist() for name in ("job", "epoch", "angle"))
    angles: dict[str, dict[int, list[float]]] = {}
    for job, epoch, angle in zip(*columns, strict=True):
        angles.setdefault(job, {}).setdefault(epoch, []).extend([] if angle is None else [angle])
    return {
        job: {epoch: sum(few) / len(few) for epoch, few in by_epoch.items() if few} for job, by_epoch in angles.items()
    }

"""The epochs of trainings, from the records beside their models: loss, score on validation images, and class names."""

from __future__ import annotations

import dataclasses
import threading
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from orchestrator.results.examples import SEPARATOR
from orchestrator.store.models import Models
from orchestrator.store.reasons import reason_of

#: Histories that are kept; beyond them the oldest go.
KEPT = 10_000


@dataclasses.dataclass(frozen=True, kw_only=True)
class Epoch:
    """One epoch of a training."""

    #: From 1.
    epoch: int
    #: Mean over the steps of the epoch.
    loss: float
    #: Score 0 .. 1 on validation images after the epoch; None where none was asked for.
    validation: float | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class History:
    """The epochs of one training, and the one whose model was kept: 0 where it has none."""

    epochs: tuple[Epoch, ...] = ()
    kept: int = 0
    #: Those of its classes whose name has the ", " that stands between the classes of an image with several.
    joined_names: frozenset[str] = frozenset()


class Histories:
    """The histories of the trainings of a store, read when a page needs them: a finished one does not change."""

    def __init__(self, store: Models) -> None:
        self._store = store
        self._lock = threading.Lock()
        self._known: dict[str, History] = {}
        #: Records that could not be read, with the reason.
        self.skipped: dict[str, str] = {}

    def of(self, jobs: Collection[str]) -> Mapping[str, History]:
        """The histories of those trainings whose record can be read; a record that is missing is no problem."""
        with self._lock:
            for job in jobs:
                if job not in self._known:
                    self._read(job)
            found = {job: self._known[job] for job in jobs if job in self._known}
            for job in [*self._known][: max(0, len(self._known) - KEPT)]:
                del self._known[job]
            return found

    def _read(self, job: str) -> None:
        path = f"models/{job}/record.json"
        try:
            self._known[job] = _history(self._store.record(job))
            self.skipped.pop(path, None)
        except FileNotFoundError:
            return
        except (ValueError, OSError) as error:
            self.skipped[path] = reason_of(error)


class JoinedHistories:
    """The histories of the trainings of several stores: a training that two of them have is that of the first."""

    def __init__(self, histories: Sequence[Histories]) -> None:
        self._histories = histories

    def of(self, jobs: Collection[str]) -> Mapping[str, History]:
        """The histories of trainings, see `Histories.of`."""
        return {job: history for one in reversed(self._histories) for job, history in one.of(jobs).items()}


def _history(record: Mapping[str, Any]) -> History:
    """The epochs of a record. Raises ValueError for a history that is none."""
    if not isinstance(record.get("history"), list):
        raise ValueError("expected a record with a history of epochs, got none")
    try:
        # Rows without a loss are logs of single steps.
        epochs = [_epoch(row) for row in record["history"] if "loss" in row]
        last = epochs[-1].epoch if epochs else 0
        # Older records do not name the epoch that was kept: it was the last.
        names = frozenset(name for name in map(str, record.get("classes", ())) if SEPARATOR in name)
        return History(epochs=tuple(epochs), kept=int(record.get("kept_epoch", last)), joined_names=names)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        raise ValueError(f"expected a record with a history of epochs: {reason_of(error)}") from error


def _epoch(row: Mapping[str, Any]) -> Epoch:
    score = row.get("validation")
    return Epoch(epoch=int(row["epoch"]), loss=float(row["loss"]), validation=None if score is None else float(score))

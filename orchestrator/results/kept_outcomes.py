"""The outcomes of files of results that are kept in memory."""

from __future__ import annotations

import collections
import dataclasses

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.outcome_file import OutcomeTable

#: Bytes that are kept. The least recently used tables are dropped first, and read again when needed.
KEPT = 500_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class FileOutcomes:
    """The outcomes of the cells of one file of results: their positions in a table, -1 for a cell without outcomes.

    Small files that were read together have one table.
    """

    table: OutcomeTable
    positions: NDArray[np.int64]

    @property
    def complete(self) -> bool:
        """Whether every cell has outcomes."""
        return bool((self.positions >= 0).all())


class KeptOutcomes:
    """The complete outcomes of files by name, of at most KEPT bytes but for the last ones."""

    def __init__(self) -> None:
        self._files: dict[str, FileOutcomes] = {}
        #: Their tables, the least recently used first, each with the names of its files; and the bytes of all.
        self._tables: collections.OrderedDict[OutcomeTable, list[str]] = collections.OrderedDict()
        self._bytes = 0

    @property
    def full(self) -> bool:
        """Whether to keep more would drop others."""
        return self._bytes > 0.8 * KEPT

    def get(self, name: str) -> FileOutcomes | None:
        """The outcomes of a file; None where they are not kept."""
        file = self._files.get(name)
        if file is not None:
            self._tables.move_to_end(file.table)
        return file

    def keep(self, name: str, file: FileOutcomes) -> None:
        """Keep the outcomes of a file, which are complete."""
        self._files[name] = file
        if file.table not in self._tables:
            self._bytes += file.table.nbytes
        self._tables.setdefault(file.table, []).append(name)
        while self._bytes > KEPT and len(self._tables) > 1:
            dropped, names = self._tables.popitem(last=False)
            self._bytes -= dropped.nbytes
            # One that was read again since has another table.
            for old in [old for old in names if old in self._files and self._files[old].table is dropped]:
                del self._files[old]

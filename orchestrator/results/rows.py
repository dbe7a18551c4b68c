"""The rows of a store's results by their number in the index: what they say, and which files and cells they are of."""

from __future__ import annotations

import functools

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.categories import plain
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.filerows import FileRows
from orchestrator.store.tally import Expected


class Rows:
    """Rows of files, in any order: `positions` has the place of each in `table`, which is all files one by one."""

    def __init__(self, files: FileRows, table: pa.Table, positions: NDArray[np.int64]) -> None:
        self._columns = {name: single(table[name]) for name in table.column_names}
        self._numbers: dict[str, NDArray[np.float64]] = {}
        self._positions = positions
        #: The files by number, their bounds in the concatenation, and the number of each row's file.
        self.files: tuple[str, ...] = tuple(files)
        self._ends = np.cumsum([0, *files.lengths.values()], dtype=np.int64)
        self.file_of_row: NDArray[np.int64] = np.searchsorted(self._ends[1:], positions, "right")

    def __len__(self) -> int:
        return len(self._positions)

    @functools.cached_property
    def jobs(self) -> frozenset[str]:
        """The keys of all attack jobs."""
        return frozenset(self._columns["job"].dictionary.to_pylist())

    def value(self, column: str, row: int) -> object:
        """One value of a column of COLUMNS."""
        value: object = self._columns[column][int(self._positions[row])].as_py()
        return value

    def codes(self, column: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """A column of texts at some rows as numbers that are equal where the texts are; -1 for nulls."""
        codes = self._columns[column].indices.take(to_arrow(self._positions[rows]))
        return np.where(to_numpy(codes.is_valid()), to_numpy(codes), -1).astype(np.int64)

    def texts(self, column: str, rows: NDArray[np.int64]) -> list[str]:
        """A column of texts at some rows; "" for nulls."""
        array = self._columns[column]
        # Arrow's way to fill nulls in a dictionary imports pandas.
        codes = array.indices.take(to_arrow(self._positions[rows]))
        return [text or "" for text in array.dictionary.take(codes).to_pylist()]

    def numbers(self, column: str) -> NDArray[np.float64]:
        """A column of numbers by row; NaN for nulls."""
        if column not in self._numbers:
            self._numbers[column] = plain(self._columns[column])[self._positions]
        return self._numbers[column]

    @property
    def last_write(self) -> str:
        """When the last result was finished; "" where there is no result."""
        last = pc.max(self._columns["finished_at"]).as_py() if len(self) else None
        return f"{last:%Y-%m-%d %H:%M:%S} UTC" if last else ""

    @property
    def cells(self) -> pa.Array:
        """The keys of all cells of all files, in the order of the files."""
        return self._columns["cell"]

    def rows_of(self, cells: pa.Array) -> NDArray[np.int64]:
        """The row of each of these cells, all of which the index has."""
        every = self.cells.take(to_arrow(self._positions))
        return to_numpy(pc.index_in(cells, value_set=every)).astype(np.int64)

    def expected(self, file_number: int) -> Expected:
        """The count and mean that the outcomes of each cell of a file must have, in the order of the file."""
        start, count = int(self._ends[file_number]), int(self._ends[file_number + 1] - self._ends[file_number])
        cells, n, values = (self._columns[name].slice(start, count) for name in ("cell", "n", "value"))
        return cells, to_numpy(n), to_numpy(values)

    def row_in_file(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of rows in their files."""
        rows_in_files: NDArray[np.int64] = self._positions[rows] - self._ends[self.file_of_row[rows]]
        return rows_in_files

    def row_of(self, cell: str) -> int | None:
        """The row of the cell whose key is `cell` or begins so; the first where several do."""
        cells = self._columns["cell"]
        position = pc.index(cells, cell).as_py() if cell and len(self) else -1
        if position < 0 and len(cell) >= 8:
            position = pc.index(pc.starts_with(cells, cell), True).as_py()
        if position < 0:
            return None
        # Where two sweeps computed the cell, the row that was finished first stands for it.
        candidates = np.flatnonzero(self._positions == position)
        if not len(candidates):
            candidates = np.flatnonzero(np.asarray(pc.equal(cells, cells[position]))[self._positions])
        return int(candidates[0]) if len(candidates) else None

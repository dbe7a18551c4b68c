"""The rows of a store's results by their number in the index: what they say, and which files and cells they are of."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.categories import Categories, joined, plain
from orchestrator.results.devices import WAYS, modules, ways
from orchestrator.results.superseded import Why
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.filerows import FileRows
from orchestrator.store.tally import Expected, expected


class Rows:
    """Rows of files, in any order. A column of all files is put together when it is needed: of a million rows that
    takes a hundredth of a second, and most pages need few.
    """

    def __init__(self, files: FileRows) -> None:
        self._rows_by_file = files
        self._columns: dict[str, pa.Array] = {}
        #: For positions of rows that others stand for, the numbers of those and why.
        self._stand_ins: dict[int, tuple[int, Why]] = {}
        #: The files by number, and their bounds in the concatenation.
        self.files: tuple[str, ...] = tuple(files)
        self._ends = np.cumsum([0, *files.lengths.values()], dtype=np.int64)

    def _put(self, positions: NDArray[np.int64]) -> None:
        """Put the rows at these positions of the concatenation in this order."""
        self._positions = positions
        #: The number of each row's file.
        files = np.arange(len(self.files), dtype=np.int32)
        self.file_of_row: NDArray[np.int32] = np.repeat(files, np.diff(self._ends))[positions]

    def _column(self, name: str) -> pa.Array:
        """A column of all files, one by one."""
        self._join([name])
        return self._columns[name]

    def _join(self, names: Sequence[str]) -> None:
        """Put columns of all files together at once."""
        if new := [name for name in names if name not in self._columns]:
            self._columns |= joined(self._rows_by_file, new)

    def __len__(self) -> int:
        return len(self._positions)

    @functools.cached_property
    def jobs(self) -> frozenset[str]:
        """The keys of all attack jobs."""
        return frozenset(self._column("job").dictionary.to_pylist())

    def value(self, column: str, row: int) -> object:
        """One value of a column of COLUMNS."""
        file = int(self.file_of_row[row])
        return self._rows_by_file.value(self.files[file], column, int(self._positions[row] - self._ends[file]))

    def cells_at(self, rows: NDArray[np.int64]) -> list[str]:
        """The keys of the cells at some rows: read file by file, since those of all files are half of the results."""
        numbers, places = self.file_of_row[rows], self.row_in_file(rows)
        keys = np.empty(len(rows), dtype=object)
        for number in np.unique(numbers).tolist():
            chosen = numbers == number
            cells = single(self._rows_by_file.part(self.files[number], ["cell"])["cell"])
            keys[chosen] = cells.take(to_arrow(places[chosen])).to_pylist()
        return list(keys)

    def codes(self, column: str, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """A column of texts at some rows as numbers that are equal where the texts are; -1 for nulls."""
        codes = self._column(column).indices.take(to_arrow(self._positions[rows]))
        return np.where(to_numpy(codes.is_valid()), to_numpy(codes), -1).astype(np.int64)

    def texts(self, column: str, rows: NDArray[np.int64]) -> list[str]:
        """A column of texts at some rows; "" for nulls."""
        array = self._column(column)
        # Arrow's way to fill nulls in a dictionary imports pandas.
        codes = array.indices.take(to_arrow(self._positions[rows]))
        return [text or "" for text in array.dictionary.take(codes).to_pylist()]

    def numbers(self, column: str, rows: NDArray[np.int64] | Sequence[int]) -> NDArray[np.float64]:
        """A column of numbers at some rows; NaN for nulls."""
        return plain(self._column(column).take(to_arrow(self._positions[rows])))

    @functools.cached_property
    def ways(self) -> Mapping[str, Categories]:
        """How each row's model was fine-tuned, under "finetune_", and attacked, under ""; see `devices.ways`."""
        return {prefix: ways(self._column, prefix, self._positions) for prefix in WAYS}

    @functools.cached_property
    def modules(self) -> Categories:
        """With what text of the user's modules each row was computed; see `devices.modules`."""
        return modules(self._column, self._positions)

    @property
    def last_write(self) -> str:
        """When the last result was finished; "" where there is no result."""
        last = pc.max(self._column("finished_at")).as_py() if len(self) else None
        return f"{last:%Y-%m-%d %H:%M:%S} UTC" if last else ""

    @property
    def cells(self) -> pa.Array:
        """The keys of all cells of all files, in the order of the files."""
        return self._column("cell")

    @property
    def counting(self) -> pa.Array:
        """The key of each row's cell."""
        return self.cells.take(to_arrow(self._positions))

    @functools.cached_property
    def results(self) -> int:
        """Number of cells with a result, also where that of another one stands for it."""
        if not self._stand_ins:
            return len(self)
        every = np.array([*self._positions, *self._stand_ins])
        return int(pc.count_distinct(self.cells.take(to_arrow(every))).as_py())

    def rows_of(self, cells: pa.Array) -> NDArray[np.int64]:
        """The row of each of these cells, all of which count."""
        return to_numpy(pc.index_in(cells, value_set=self.counting)).astype(np.int64)

    def expected(self, file_number: int) -> Expected:
        """The count and mean that the outcomes of each cell of a file must have, in the order of the file."""
        return expected(self._rows_by_file.part(self.files[file_number], ["cell", "n", "value"]))

    def row_in_file(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The positions of rows in their files."""
        rows_in_files: NDArray[np.int64] = self._positions[rows] - self._ends[self.file_of_row[rows]]
        return rows_in_files

    def row_of(self, cell: str) -> int | None:
        """The row of the cell whose key is `cell` or begins so, the first where several do, or that stands for it."""
        cells, position = self._column("cell"), self._position_of(cell)
        if position < 0:
            return None
        candidates = np.flatnonzero(self._positions == position)
        if not len(candidates):
            candidates = np.flatnonzero(np.asarray(pc.equal(cells, cells[position]))[self._positions])
        return int(candidates[0]) if len(candidates) else self._stand_ins.get(position, (None,))[0]

    def why_another(self, cell: str) -> Why:
        """Why the row of another cell stands for that whose key is `cell` or begins so."""
        return self._stand_ins.get(self._position_of(cell), (0, Why.COUNTS))[1]

    def _position_of(self, cell: str) -> int:
        """The position of the first such cell in the concatenation of the files; -1 where there is none."""
        cells = self._column("cell")
        position = pc.index(cells, cell).as_py() if cell and len(self) else -1
        if position < 0 and len(cell) >= 8:
            position = pc.index(pc.starts_with(cells, cell), True).as_py()
        return int(position)

    def rows_of_model(self, job: str) -> list[int]:
        """The rows of the model whose fine-tune has the key `job` or one that begins so, of the first of several."""
        if not len(self):
            return []
        keys = self._column("finetune_job").dictionary.to_pylist()
        found = [at for at, key in enumerate(keys) if key == job] or [
            at for at, key in enumerate(keys) if len(job) >= 8 and key is not None and key.startswith(job)
        ]
        rows: list[int] = np.flatnonzero(np.isin(self.codes("finetune_job", np.arange(len(self))), found[:1])).tolist()
        return rows

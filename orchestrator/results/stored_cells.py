"""What is stored of single cells: every column of their results, their adversarial images, what attacks measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.results.categories import plain
from orchestrator.results.examples import Example
from orchestrator.results.index import Index
from orchestrator.store import tables
from orchestrator.store.arrays import single, to_numpy
from orchestrator.store.folder import Folder
from orchestrator.store.store import Store
from orchestrator.store.trusted import sharing

_MEASURED = ("robust", "confidence", *tables.MEASURES)


class StoredCells:
    """The files of a store, read for the cells of some rows of its index."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self._examples = Folder(store, "examples", tables.EXAMPLES, tables.EXAMPLES.names)
        self._reach = Folder(store, "outcomes", tables.OUTCOMES, ("cell", "image", "linf"))
        self._measured = Folder(store, "outcomes", tables.OUTCOMES, ("cell", "image", *_MEASURED))

    def rows(self, index: Index, rows: Sequence[int]) -> list[Mapping[str, Any]]:
        """Every column of some rows of results; an empty mapping for a row whose file is gone."""
        chosen = np.array(rows, dtype=np.int64)
        names, places = (
            [index.files[number] for number in index.file_of_row[chosen].tolist()],
            index.row_in_file(chosen).tolist(),
        )
        folder = Folder(self.store, "results", tables.RESULTS, tables.RESULTS.names)
        read = folder.read(list(dict.fromkeys(names)))
        stored = [
            read[name].slice(place, 1).to_pylist()[0] if name in read else {}
            for name, place in zip(names, places, strict=True)
        ]
        if folder.vanished:
            # Merged since the index was made.
            cells = [str(index.value("cell", row)) for row in rows]
            new_files = folder.read(set(folder.names()) - set(index.files)).values()
            moved = [table.filter(pc.is_in(table["cell"].cast(pa.string()), pa.array(cells))) for table in new_files]
            by_cell = {row["cell"]: row for table in moved for row in table.to_pylist()}
            stored = [row or by_cell.get(cell, {}) for row, cell in zip(stored, cells, strict=True)]
        return stored

    def examples(self, index: Index, rows: Sequence[int]) -> dict[str, list[Example]]:
        """The adversarial images of the cells of some rows, by cell."""
        by_cell = self._of_cells(self._examples, index, rows)
        return {cell: [Example(**row) for row in rows_of_cell] for cell, rows_of_cell in by_cell.items()}

    def reach(self, index: Index, rows: Sequence[int]) -> dict[str, dict[int, float]]:
        """The largest change of a pixel by image, for the cells of some rows, by cell."""
        by_cell = self._of_cells(self._reach, index, rows)
        return {cell: {row["image"]: row["linf"] for row in rows_of_cell} for cell, rows_of_cell in by_cell.items()}

    def measured(self, index: Index, rows: Sequence[int]) -> dict[str, dict[str, NDArray[np.float64]]]:
        """What was measured of each image of the cells of some rows, sorted by `image`, by cell; `robust` is 0 or 1."""
        by_cell: dict[str, dict[str, NDArray[np.float64]]] = {}
        for table in self._tables(self._measured, index, rows):
            columns = {name: plain(single(table[name])) for name in ("image", *_MEASURED)}
            keys = single(table["cell"])
            codes = to_numpy(keys.indices)
            for code in np.unique(codes).tolist():
                of_cell = np.flatnonzero(codes == code)
                # Of an image that comes twice the first row counts.
                _, first = np.unique(columns["image"][of_cell], return_index=True)
                cell = keys.dictionary[code].as_py()
                by_cell.setdefault(cell, {name: values[of_cell[first]] for name, values in columns.items()})
        return by_cell

    def _of_cells(self, folder: Folder, index: Index, rows: Sequence[int]) -> dict[str, list[dict[str, Any]]]:
        """The rows of a folder for the cells of some rows of results."""
        by_cell: dict[str, list[dict[str, Any]]] = {}
        for table in self._tables(folder, index, rows):
            for row in table.to_pylist():
                by_cell.setdefault(row["cell"], []).append(row)
        # Of an image that comes twice the first row counts.
        return {
            cell: list({row["image"]: row for row in reversed(rows_of_cell)}.values())[::-1]
            for cell, rows_of_cell in by_cell.items()
        }

    def _tables(self, folder: Folder, index: Index, rows: Sequence[int]) -> list[pa.Table]:
        """The rows of a folder for the cells of some rows of results, file by file: from the files named like those of
        their results or like their jobs, or else from all files that results of other names may share.
        """
        names_of_rows = [(index.files[index.file_of_row[row]], str(index.value("job", row))) for row in rows]
        cells = pa.array([str(index.value("cell", row)) for row in rows])
        own_names = sorted({name for names_of_row in names_of_rows for name in names_of_row})
        read = folder.read(own_names)
        # Without a listing, which takes longer than a few of many files.
        existing = set(read) | folder.broken.keys()
        if any(existing.isdisjoint(names_of_row) for names_of_row in names_of_rows):
            for listing in folder.listings():
                existing = set(listing)
                names = existing.intersection(own_names)
                if any(existing.isdisjoint(names_of_row) for names_of_row in names_of_rows):
                    names |= sharing(existing, {*index.files, *index.jobs})
                read = folder.read(sorted(names))
        return [_with_cells(table, cells) for table in read.values()]


def _with_cells(table: pa.Table, cells: pa.Array) -> pa.Table:
    """The rows of some cells, by the codes of their keys: the keys come once for every image."""
    column = single(table["cell"])
    codes = pc.index_in(cells, value_set=column.dictionary).drop_null().cast(column.indices.type)
    return table.filter(pc.is_in(column.indices, value_set=codes)).combine_chunks()

"""The store: the directory or bucket with results, models and failures, the only record of which jobs are done.

A file is written completely or not at all. No file is a pickle. A file that a number comes from contains its own
digest, which is checked whenever it is read (see `signsym_core.seal`). Damaged, incomplete and foreign files are named
and skipped.
"""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from orchestrator.store import records, rowcopy, tables
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.files import StoreError as StoreError
from orchestrator.store.folder import Folder
from orchestrator.store.models import Models
from orchestrator.store.progress import Progress, silent
from orchestrator.store.reasons import reason_of
from signsym_core import seal
from signsym_core.seal import DamagedError as DamagedError

if TYPE_CHECKING:
    # Imported where frames are made, so that a sweep's driver does not load pandas.
    import pandas as pd

#: Rows of a table up to which it is written without dictionaries and statistics.
FEW = 64
#: Levels and folders per level that are searched for stores below a folder that is none, and how many are named.
LEVELS, WIDTH, NAMED = 3, 200, 10


class Store(Models):
    """A store at a local path or a URI that pyarrow knows, such as s3://bucket/sweeps.

    >>> import tempfile
    >>> from orchestrator.store import Store, tables
    >>> store = Store(tempfile.mkdtemp())
    >>> failure = {"job": "3f9a", "title": "attack pgd usf", "attempt": 2, "error": "OSError: disk full"}
    >>> store.write_table("failures", "3f9a", [failure], tables.FAILURES)
    >>> store.names("failures", ".parquet")
    ['3f9a.parquet']
    >>> store.table("failures", tables.FAILURES, ["job", "error"]).to_pylist()
    [{'job': '3f9a', 'error': 'OSError: disk full'}]
    >>> len(store.results())  # what `signsym sweep` has measured, as a frame: a row for each cell
    0
    """

    def is_store(self) -> bool:
        """Whether the place has grids or results of a sweep."""
        return bool(self.names("grids", ".yaml") or self.names("results", ".parquet"))

    def stores_below(self) -> list[str]:
        """Some of the local stores below this folder, for people who named a parent folder instead of a store."""
        below = [] if self.folder is None or not self.folder.is_dir() else [self.folder]
        stores: list[str] = []
        for _ in range(LEVELS):
            below = [place for folder in below[:WIDTH] for place in sorted(_folders(folder))]
            stores += [str(place) for place in below if (place / "grids").is_dir() and Store(str(place)).is_store()]
        return stores[:NAMED]

    # Tables

    def write_table(self, folder: str, key: str, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        """Put rows into FOLDER/KEY.parquet."""
        table = pa.Table.from_pylist(list(rows), schema=schema)
        self.write(f"{folder}/{key}.parquet", sealed_table(table, schema, copy=rowcopy.written(table)))

    def table(self, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a folder's files; broken and foreign files are left out and named in `skipped`."""
        file_tables = list(self.iter_tables(folder, schema, columns))
        if file_tables:
            return pa.concat_tables(file_tables)
        return pa.Table.from_batches([], pa.schema([schema.field(name) for name in columns or schema.names]))

    def iter_tables(self, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of a folder's files, file by file; broken and foreign files are left out and named in `skipped`."""
        files = Folder(self, folder, schema, columns or schema.names, plain=schema.names)
        for table in files.iter_tables():
            yield table.cast(files.columns)
        self.skipped |= files.skipped
        self.unsealed |= files.unsealed

    def result_table(self, columns: Sequence[str] = tables.RESULTS.names, progress: Progress = silent) -> pa.Table:
        """A row for each cell that has outcomes, by the time; of a cell that two sweeps computed, that finished first.

        `progress` is told how much was read.
        """
        return first_of_each_cell(self.result_rows(columns, progress)).select(columns)

    def result_rows(self, columns: Sequence[str], progress: Progress = silent) -> pa.Table:
        """The rows that `result_table` chooses from, with the columns that it needs for that."""
        from orchestrator.store.trusted import sound_results

        needed = list(dict.fromkeys([*columns, "cell", "finished_at"]))
        schema = pa.schema([tables.RESULTS.field(name) for name in needed])
        return pa.concat_tables([schema.empty_table(), *sound_results(self, needed, progress)])

    def results(self, columns: Sequence[str] = tables.RESULTS.names) -> pd.DataFrame:
        """`result_table` as a frame."""
        frame: pd.DataFrame = self.result_table(columns).to_pandas()
        return frame

    def outcomes(self) -> pd.DataFrame:
        """A row for each cell and image, once."""
        frame: pd.DataFrame = self.table("outcomes", tables.OUTCOMES).to_pandas()
        return frame.drop_duplicates(["cell", "image"]).reset_index(drop=True)

    # JSON

    def write_json(self, path: str, value: Any) -> None:
        """Write a value as JSON to `path`."""
        self.write(path, json.dumps(value, indent=1, sort_keys=True).encode())

    def read_json_files(self, folder: str) -> dict[str, Any]:
        """{name without suffix: value} of a folder's JSON files; unreadable ones are named in `skipped`."""
        values = {}
        names, strangers = self.listing(folder, ".json")
        self.skipped |= strangers
        for name in names:
            try:
                values[name.removesuffix(".json")] = records.parsed(self.read(f"{folder}/{name}"))
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                self.skipped[f"{folder}/{name}"] = reason_of(error)
        return values

    def forget_failures(self, jobs: Iterable[str]) -> None:
        """Remove the failure records of `jobs`."""
        for name in set(self.names("failures", ".parquet")) & {f"{job}.parquet" for job in jobs}:
            self.remove(f"failures/{name}")


def first_of_each_cell(results: pa.Table) -> pa.Table:
    """Results by the time, of each cell that which finished first."""
    # Indices of a stable sort, nulls last.
    order = pc.sort_indices(results["finished_at"])
    cells = pc.dictionary_encode(single(results["cell"]).take(order)).indices
    firsts = np.sort(np.unique(to_numpy(cells), return_index=True)[1])
    return results.take(order.take(to_arrow(firsts)))


def sealed_table(table: pa.Table, schema: pa.Schema, copy: str = "", **footer: str) -> bytearray:
    """A table as a Parquet file that carries its own digest, with a copy of its rows and more texts in its footer."""
    sink = pa.BufferOutputStream()
    # For a few rows, dictionaries, statistics and a compressor for each column take most of the time, and room.
    plain = {"compression": "snappy", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(sink, schema, **(plain if len(table) <= FEW else {"compression": "zstd"})) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({seal.KEY: seal.BLANK + copy, **footer})
    return seal.sealed(sink.getvalue())


def open_store(storage: str) -> Store:
    """The store at `storage`. Raises StoreError where there is none, with the stores below it."""
    store = Store(storage)
    if store.is_store():
        return store
    if below := store.stores_below():
        raise StoreError(f"{store.uri} is no store; stores below it: {', '.join(below)}")
    raise StoreError(
        f"there is no sweep in {store.uri}; make one with: signsym sweep GRID --storage {shlex.quote(storage)}"
    )


def skipped_in(stores: Sequence[Store]) -> dict[str, str]:
    """The files of stores that were not used, with the reason; of several stores each by its whole path."""
    several = len(stores) > 1
    return {f"{s.uri}/{name}" if several else name: reason for s in stores for name, reason in s.skipped.items()}


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []

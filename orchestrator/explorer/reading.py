"""Files of a store, each read once: what a sweep adds is read when it appears, and no file can stop the others."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import tables
from orchestrator.store import THREADS, Store

#: Bytes of a file from which on it is read by several threads.
LARGE = 20_000_000


class Folder:
    """The Parquet files of one folder of a store, all of one schema.

    A file appears whole under a name that says what it holds and never changes, so a name is read once. A file that
    is half-written, foreign or of an old schema is named in `skipped` with the reason, and tried again later.
    """

    def __init__(
        self, store: Store, name: str, schema: pa.Schema, columns: Sequence[str], plain: Collection[str] = ()
    ) -> None:
        self.store, self.name = store, name
        self.columns = pa.schema([schema.field(column) for column in columns])
        self._text = [field.name for field in self.columns if field.type == pa.string() and field.name not in plain]
        text = pa.dictionary(pa.int32(), pa.string())
        kinds = [text if field.name in self._text else field.type for field in self.columns]
        self._schema = pa.schema(zip(self.columns.names, kinds, strict=True))
        self._required = set(schema.names) - tables.ADDED
        #: Files that could not be read, with the reason.
        self.skipped: dict[str, str] = {}

    def names(self) -> list[str]:
        """The files that are there now, without their suffix."""
        return [name.removesuffix(".parquet") for name in self.store.names(self.name, ".parquet")]

    def read(self, names: Iterable[str]) -> dict[str, pa.Table]:
        """The tables of those of `names` that can be read, each column in one piece.

        Text is dictionary-encoded, since most of it comes many times, but for the columns that `plain` names.
        """
        workers = os.cpu_count() if self.store.folder is not None else THREADS
        with ThreadPoolExecutor(workers) as pool:
            found = zip(names, pool.map(self._read, names), strict=True) if names else ()
            return {name: table for name, table in found if table is not None}

    def _read(self, name: str) -> pa.Table | None:
        place = f"{self.name}/{name}.parquet"
        try:
            table = self._parsed(self.store.read(place))
        except FileNotFoundError:
            # Removed between the listing and the reading.
            return None
        except Exception as error:
            # Whatever is wrong with one file must not hide the others: it is named instead.
            self.skipped[place] = (str(error) or type(error).__name__).splitlines()[0][:300]
            return None
        self.skipped.pop(place, None)
        return table

    def _parsed(self, data: bytes) -> pa.Table:
        file = pq.ParquetFile(pa.BufferReader(data), read_dictionary=self._text, pre_buffer=False)
        there = set(file.schema_arrow.names)
        if missing := sorted(self._required - there):
            raise ValueError(f"it has no column {', '.join(missing)}")
        # Threads over files are enough: threads within small files cost more than they save.
        large = len(data) > LARGE
        found = file.read(columns=[name for name in self.columns.names if name in there], use_threads=large)
        columns = {
            field.name: found[field.name] if field.name in there else pa.nulls(len(found), field.type)
            for field in self._schema
        }
        table = pa.table(columns)
        if table.schema.types != self._schema.types:
            table = table.cast(self._schema)
        if any(column.num_chunks > 1 for column in table.itercolumns()):
            table = table.unify_dictionaries().combine_chunks()
        return table

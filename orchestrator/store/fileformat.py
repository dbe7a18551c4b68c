"""What the bytes of a file of a folder hold: the columns that are read of it."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.store import merged, rowcopies, rowcopy, rows, tables
from orchestrator.store.rowcopy import RowCopy

#: Files of more bytes are read by several threads each.
LARGE = 20_000_000


class FileFormat:
    """Some columns of files of one schema. Text is dictionary-encoded, except for the columns `plain`."""

    def __init__(self, schema: pa.Schema, columns: Sequence[str], plain: Collection[str]) -> None:
        self.columns = pa.schema([schema.field(column) for column in columns])
        self._text = [field.name for field in self.columns if field.type == pa.string() and field.name not in plain]
        text = pa.dictionary(pa.int32(), pa.string())
        kinds = [text if field.name in self._text else field.type for field in self.columns]
        self._encoded = pa.schema(zip(self.columns.names, kinds, strict=True))
        self._full, self._description = schema, rowcopy.described(schema)
        # A file that lacks any column of the table is foreign, also where that column is not read.
        self._known = set(schema.names)
        self._required = self._known - tables.ADDED

    def copied(self, data: bytes) -> RowCopy | None:
        """The copy of its rows in a file whose seal was checked; None where there is none of this schema."""
        return rowcopy.read(data, self._full, self._description)

    def joined(self, copies: Sequence[RowCopy]) -> pa.Table:
        """The rows of all copies, one after the other."""
        return rowcopies.joined(copies, self._full, self.columns.names, self._text)

    def parsed(self, data: bytes) -> tuple[pa.Table, bool, bool]:
        """The table of a file; whether it is of a newer version, with columns that the schema does not have; and
        whether it holds rows of files without a digest.
        """
        file = self._opened(data)
        schema = file.schema_arrow
        column_names = set(schema.names)
        if missing := sorted(self._required - column_names):
            raise ValueError(f"it has no column {', '.join(missing)}")
        rows.check_types(schema, self.columns)
        # Small files are read by one thread each, since several files are read concurrently.
        large = len(data) > LARGE
        read = file.read(columns=[name for name in self.columns.names if name in column_names], use_threads=large)
        columns = {
            field.name: read[field.name] if field.name in column_names else pa.nulls(len(read), field.type)
            for field in self._encoded
        }
        table = pa.table(columns)
        if table.schema.types != self._encoded.types:
            table = table.cast(self._encoded)
        if any(column.num_chunks > 1 for column in table.itercolumns()):
            table = table.unify_dictionaries().combine_chunks()
        return table, bool(column_names - self._known), merged.UNSEALED in (file.metadata.metadata or {})

    def _opened(self, data: bytes) -> pq.ParquetFile:
        options = {"pre_buffer": False}
        try:
            return pq.ParquetFile(pa.BufferReader(data), read_dictionary=self._text, **options)
        except KeyError:
            # Arrow refuses a dictionary for a column that an older file does not have.
            known = set(pq.read_schema(pa.BufferReader(data)).names)
            text = [name for name in self._text if name in known]
            return pq.ParquetFile(pa.BufferReader(data), read_dictionary=text, **options)

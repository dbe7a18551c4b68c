"""The rows of files by the name of the file; those of files that were read together are parts of one table."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence

import pyarrow as pa

from orchestrator.store.arrays import single

#: Most rows of a small file.
SMALL = 1 << 16


class FileRows(Mapping[str, pa.Table]):
    """The table of each file, cut out of a larger one when it is asked for: of ten thousand files that takes a second.

    All tables have one schema, and columns of one chunk.
    """

    def __init__(self, tables: Mapping[str, pa.Table] | None = None) -> None:
        #: The table that has a file's rows, the first of them, and their number.
        self._ranges = {name: (table, 0, len(table)) for name, table in (tables or {}).items()}

    @classmethod
    def of(cls, lengths: Mapping[str, int], table: pa.Table) -> FileRows:
        """The rows of files that follow each other in a table."""
        rows, start = cls(), 0
        for name, length in lengths.items():
            rows._ranges[name] = table, start, length
            start += length
        return rows

    def __getitem__(self, name: str) -> pa.Table:
        table, start, length = self._ranges[name]
        return table.slice(start, length)

    def part(self, name: str, columns: Sequence[str]) -> pa.Table:
        """Some columns of a file."""
        table, start, length = self._ranges[name]
        return table.select(columns).slice(start, length)

    def value(self, name: str, column: str, row: int) -> object:
        """One value of a file."""
        table, start, _ = self._ranges[name]
        value: object = single(table[column])[start + row].as_py()
        return value

    def __contains__(self, name: object) -> bool:
        return name in self._ranges

    def __iter__(self) -> Iterator[str]:
        return iter(self._ranges)

    def __len__(self) -> int:
        return len(self._ranges)

    def __or__(self, other: FileRows) -> FileRows:
        """The files of both; of a file that both have the rows in `other`."""
        both = FileRows()
        both._ranges = self._ranges | other._ranges
        return both

    def only(self, names: Collection[str]) -> FileRows:
        """The files among `names`, in that order."""
        few = FileRows()
        few._ranges = {name: self._ranges[name] for name in names if name in self._ranges}
        return few

    def small(self) -> list[str]:
        """The files of few rows, which are better looked at together."""
        return [name for name, (_, _, length) in self._ranges.items() if length <= SMALL]

    def prefixed(self, prefix: str) -> FileRows:
        """The same rows, with `prefix` before the names of the files."""
        prefixed = FileRows()
        prefixed._ranges = {f"{prefix}{file}": rows for file, rows in self._ranges.items()}
        return prefixed

    @property
    def lengths(self) -> dict[str, int]:
        """The number of each file's rows."""
        return {name: length for name, (_, _, length) in self._ranges.items()}

    def together(self, columns: Sequence[str]) -> pa.Table:
        """Some columns of all files, of which there is at least one, file by file in columns of one chunk."""
        tables = []
        for _, ranges in itertools.groupby(self._ranges.values(), lambda rows: id(rows[0])):
            (table, first, length), *rest = ranges
            table, slices = table.select(columns), []
            for _, start, more in rest:
                if start != first + length:
                    slices.append(table.slice(first, length))
                    first, length = start, 0
                length += more
            last = table.slice(first, length)
            # The parts of one table have one dictionary, which is unified once for them and not for each.
            tables.append(pa.concat_tables([*slices, last]).combine_chunks() if slices else last)
        return pa.concat_tables(tables).combine_chunks() if len(tables) > 1 else tables[0]


@dataclasses.dataclass(frozen=True)
class ReadFiles:
    """What was read of a folder, maybe in another process."""

    rows: FileRows
    broken: dict[str, str]
    unsealed: set[str]
    newer: set[str]

    def in_one(self) -> ReadFiles:
        """The same, with the rows of all files in one table."""
        if len(self.rows) < 2:
            return self
        columns = next(iter(self.rows.values())).column_names
        return dataclasses.replace(self, rows=FileRows.of(self.rows.lengths, self.rows.together(columns)))

"""Reads a folder of a store: every file is checked as it is read, and a broken file does not stop the others.

A file that is damaged, incomplete, foreign or of an old schema, that has impossible rows, or that is no file at all, is
left out and named in `skipped` with the reason. A file may have the rows of any number of jobs.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from orchestrator.store import merged, rows
from orchestrator.store.fileformat import FileFormat
from orchestrator.store.filerows import FileRows, ReadFiles
from orchestrator.store.files import Files
from orchestrator.store.reasons import reason_of
from orchestrator.store.rowcopy import RowCopy
from signsym_core import seal

#: Files that are read concurrently from a store that is not local.
THREADS = 16
#: Files, and their bytes, that are read together where not all can be in memory. Many small files at once cost less; in
#: memory outcomes may take a hundred times the bytes of their file.
AT_ONCE, BYTES_AT_ONCE = 2048, 1 << 20
#: Bytes of a file that do not count, since they say what its columns are.
FOOTER = 1 << 12
#: Bytes of a file whose size is unknown.
USUAL = 1 << 14
#: Small files that are read by one task.
TOGETHER = 32


class Folder:
    """The Parquet files of one folder of a store, all of one schema.

    A file is written completely and never changes under its name, so each name is read once; a file that could not be
    read is read again later. Text is dictionary-encoded, since most values repeat, except for the columns `plain`.
    """

    def __init__(
        self, store: Files, name: str, schema: pa.Schema, columns: Sequence[str], plain: Collection[str] = ()
    ) -> None:
        self.store, self.name = store, name
        self._format = FileFormat(schema, columns, plain)
        self.columns = self._format.columns
        #: Files that must not be used, by name, with the reason.
        self.broken: dict[str, str] = {}
        self._strangers: dict[str, str] = {}
        self._sizes: dict[str, int] = {}
        #: Files that were read and have no digest, or hold rows of such files: they are older than digests are.
        self.unsealed: set[str] = set()
        #: Files that were removed between their listing and their reading, usually because they were merged.
        self.vanished: set[str] = set()
        #: Files of a newer version, with columns that the table does not have.
        self.newer: set[str] = set()

    @property
    def skipped(self) -> dict[str, str]:
        """The entries that could not be used, by their path below the store, with the reason."""
        return {**self._strangers, **{self._place(name): reason for name, reason in self.broken.items()}}

    def names(self) -> list[str]:
        """The present files, without their suffix.

        Files that are merged during the listing could be missed in both forms. They are removed after the list of their
        jobs is written, so a listing during which no such list appears has missed none.
        """
        before = merged.lists(self.store)
        for _ in range(merged.LOOKS):
            sizes, self._strangers = self.store.listing(self.name, ".parquet")
            after = merged.lists(self.store)
            if after == before:
                break
            before = after
        self._sizes = {file.removesuffix(".parquet"): size for file, size in sizes.items()}
        return list(self._sizes)

    def listings(self) -> Iterator[list[str]]:
        """The present files, listed again where some of them vanished before they were read, as merged ones do.

        Their rows then have another name, which a new listing has.
        """
        for _ in range(merged.LOOKS):
            names = self.names()
            self.vanished.clear()
            yield names
            if not self.vanished:
                return

    def batches(self, names: Iterable[str], most: int = BYTES_AT_ONCE) -> Iterator[list[str]]:
        """The names in batches, in their order, whose files can be read together: of `most` bytes, or one file."""
        batch: list[str] = []
        total = 0
        for name in names:
            size = max(0, self._sizes.get(name, USUAL) - FOOTER)
            if batch and (len(batch) == AT_ONCE or total + size > most):
                yield batch
                batch, total = [], 0
            batch.append(name)
            total += size
        if batch:
            yield batch

    def size(self, names: Iterable[str]) -> int:
        """The bytes of some files, as the last listing says."""
        return sum(self._sizes.get(name, USUAL) for name in names)

    def skip(self, name: str, reason: str) -> None:
        """Record a file that must not be used: it is missing, or readable and wrong."""
        self.broken[name] = reason

    def read(self, names: Iterable[str]) -> FileRows:
        """The tables of the readable files of `names`, each column as one chunk."""
        names, rows_of_files = list(names), FileRows()
        if not names:
            return rows_of_files
        # Local files are limited by the CPU, a bucket by its latency.
        local = self.store.folder is not None
        with ThreadPoolExecutor(os.cpu_count() if local else THREADS) as pool:
            for first in range(0, len(names), AT_ONCE):
                few = names[first : first + AT_ONCE]
                # A task for each small file would take longer than to read it; of few files some may be large.
                size = TOGETHER if local and len(few) > TOGETHER else 1
                groups = [few[start : start + size] for start in range(0, len(few), size)]
                loaded = dict(zip(few, itertools.chain.from_iterable(pool.map(self._load_each, groups)), strict=True))
                copies = {name: copied for name, copied in loaded.items() if isinstance(copied, RowCopy)}
                parsed = FileRows({name: table for name, table in loaded.items() if isinstance(table, pa.Table)})
                rows_of_files |= ((self._checked(copies) if copies else FileRows()) | parsed).only(few)
        return rows_of_files

    def read_all(self) -> ReadFiles:
        """All present files, as `take` takes them."""
        return ReadFiles(self.read(self.names()), self.broken, self.unsealed, self.newer)

    def take(self, files: ReadFiles) -> FileRows:
        """The tables of the files that were read before, as `read` returns them."""
        self.broken |= files.broken
        self.unsealed |= files.unsealed
        self.newer |= files.newer
        return files.rows

    def iter_batches(self) -> Iterator[FileRows]:
        """All readable files, of which only a few are in memory at a time.

        Files that are merged meanwhile are read in their new form, so that some rows may be repeated.
        """
        seen: set[str] = set()
        for listing in self.listings():
            names = [name for name in listing if name not in seen]
            seen.update(names)
            for batch in self.batches(names):
                yield self.read(batch)

    def iter_tables(self) -> Iterator[pa.Table]:
        """The tables of all files of `iter_batches`, one by one."""
        for files in self.iter_batches():
            yield from files.values()

    def _place(self, name: str) -> str:
        return f"{self.name}/{name}.parquet"

    def _load_each(self, names: Sequence[str]) -> list[pa.Table | RowCopy | None]:
        return [self._load(name) for name in names]

    def _load(self, name: str) -> pa.Table | RowCopy | None:
        """The table of a file, or its rows as they were copied behind its seal, which are still to be checked."""
        place = self._place(name)
        try:
            data = self.store.read(place)
            sealed = seal.check(data)
            if not sealed:
                self.unsealed.add(place)
            elif (copied := self._format.copied(data)) is not None:
                return copied
            table, newer, of_unsealed = self._format.parsed(data)
            self.newer |= {name} if newer else set()
            self.unsealed |= {place} if of_unsealed else set()
            rows.check(self.name, table)
        except FileNotFoundError:
            # Removed between the listing and the reading.
            self.broken.pop(name, None)
            self.vanished.add(name)
            return None
        except Exception as error:
            # One broken file must not hide the others: it is recorded instead.
            self.broken[name] = reason_of(error)
            return None
        self.broken.pop(name, None)
        return table

    def _checked(self, copies: Mapping[str, RowCopy]) -> FileRows:
        """The tables of some files by their copied rows, checked together: one by one takes most of the time."""
        try:
            together = self._format.joined([*copies.values()])
            rows.check(self.name, together)
        except Exception as error:
            if len(copies) == 1:
                self.broken[next(iter(copies))] = reason_of(error)
                return FileRows()
            half, items = len(copies) // 2, [*copies.items()]
            return self._checked(dict(items[:half])) | self._checked(dict(items[half:]))
        for name in copies:
            self.broken.pop(name, None)
        return FileRows.of({name: copied.rows for name, copied in copies.items()}, together)

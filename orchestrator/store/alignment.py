"""The alignment of trainings: one reader for files of one training each and for merged files of many.

A training counts once. Where a file of its own and a merged one have it, its own counts: a training that runs again
writes that one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.store import merged, tables
from orchestrator.store.files import Files
from orchestrator.store.folder import Folder

#: The folder of the tables.
FOLDER = "alignment"


def alignment_folder(store: Files, columns: Sequence[str] = tables.ALIGNMENT.names) -> Folder:
    """The files of alignment, of which `columns` are read."""
    return Folder(store, FOLDER, tables.ALIGNMENT, columns, plain=tables.ALIGNMENT.names)


def iter_trainings(folder: Folder, only: Collection[str] | None = None) -> Iterator[pa.Table]:
    """The rows of trainings, each training once and in one table: of all, or of the keys `only`."""
    read: set[str] = set()
    known: set[str] = set()
    for listing in folder.listings():
        names = [name for name in listing if name not in read and (only is None or may_have(folder.store, name, only))]
        read.update(names)
        for batch in folder.batches(sorted(names, key=lambda name: (merged.is_merged(name), name))):
            for table in folder.read(batch).values():
                jobs = set(table["job"].unique().to_pylist())
                new = jobs - known if only is None else (jobs & set(only)) - known
                known |= new
                if new:
                    chosen = pc.is_in(table["job"], value_set=pa.array(sorted(new), pa.string()))
                    yield table if new == jobs else table.filter(chosen)


def may_have(store: Files, name: str, jobs: Collection[str]) -> bool:
    """Whether the file of this name may have rows of one of the trainings `jobs`."""
    if name in jobs or not merged.is_merged(name):
        return name in jobs
    of_file = merged.jobs_of(store, name)
    # A merged file whose list is not written yet may have any training.
    return not of_file or not of_file.isdisjoint(jobs)

"""Small files of alignment become few large ones: the part of `signsym compact` that is about trainings.

A merged file is written and read back, then the list of its trainings, and only then the files that it replaces are
removed. What a killed compaction leaves is a file whose rows another one has too, and a reader counts a training once;
the next compaction removes it.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.store import merged, tables
from orchestrator.store.alignment import FOLDER, alignment_folder
from orchestrator.store.store import Store, sealed_table

#: Files of fewer bytes are merged.
SMALL = 1 << 20
#: Most rows of a merged file, since a page reads it for one training. It is merged again until it has half of that.
ROWS = 200_000


def merge_alignment(store: Store) -> tuple[int, int]:
    """Merge the small files of alignment; the numbers of merged files and of files that a killed compaction left.

    Raises StoreError where a merged file is not what was written. Files that cannot be used are in `store.skipped`.
    """
    folder = alignment_folder(store)
    names = folder.names()
    sizes = {entry.name.removesuffix(".parquet"): entry.size for entry in store.entries(FOLDER)}
    candidates = [name for name in names if merged.is_merged(name) or sizes.get(name, SMALL) < SMALL]
    read: dict[str, pa.Table] = {}
    for batch in folder.batches(sorted(candidates)):
        read |= folder.read(batch)
    store.skipped |= folder.skipped
    # A file without a digest would get one; columns of a newer version would be lost.
    kept = folder.newer | {path.removeprefix(f"{FOLDER}/").removesuffix(".parquet") for path in folder.unsealed}
    read = {name: table for name, table in read.items() if name not in kept and len(table)}
    for name in sorted(set(filter(merged.is_merged, read)) - set(merged.lists(store))):
        # Written by a compaction that was killed before it wrote the list.
        merged.write_jobs(store, name, _jobs(read[name]))
    repeated = _repeated(read)
    _remove(store, repeated)
    for name in repeated:
        del read[name]
    files = 0
    for members in _batches(read):
        _write(store, pa.concat_tables(members.values()))
        _remove(store, members)
        files += len(members)
    return files, len(repeated)


def _repeated(read: Mapping[str, pa.Table]) -> list[str]:
    """The files whose rows are all in one of the merged files that stay."""
    by_size = sorted(read, key=lambda name: (-len(read[name]), not merged.is_merged(name), name))
    holders: dict[str, str] = {}
    repeated = []
    for name in by_size:
        jobs = _jobs(read[name])
        holder = {holders.get(job, "") for job in jobs}
        if len(holder) == 1 and (other := holder.pop()) and _has(read[other], read[name], jobs):
            repeated.append(name)
        elif merged.is_merged(name):
            holders = dict.fromkeys(jobs, name) | holders
    return repeated


def _has(large: pa.Table, table: pa.Table, jobs: frozenset[str]) -> bool:
    """Whether `large` has the very rows of `table` for its trainings."""
    same = large.filter(pc.is_in(large["job"], value_set=pa.array(sorted(jobs), pa.string())))
    return sorted(map(repr, same.to_pylist())) == sorted(map(repr, table.to_pylist()))


def _batches(read: Mapping[str, pa.Table]) -> Iterator[dict[str, pa.Table]]:
    """The files of one merged file each: two at least, and no training twice."""
    merged_jobs = frozenset[str]().union(*(_jobs(table) for name, table in read.items() if merged.is_merged(name)))
    batch: dict[str, pa.Table] = {}
    jobs: set[str] = set()
    rows = 0
    for name, table in read.items():
        its_jobs, full = _jobs(table), merged.is_merged(name) and 2 * len(table) > ROWS
        # A training that ran again after a merge stays in its own file, which counts.
        again = not merged.is_merged(name) and not merged_jobs.isdisjoint(its_jobs)
        if full or again or not jobs.isdisjoint(its_jobs):
            continue
        if batch and rows + len(table) > ROWS:
            if len(batch) > 1:
                yield batch
            batch, jobs, rows = {}, set(), 0
        batch[name] = table
        jobs |= its_jobs
        rows += len(table)
    if len(batch) > 1:
        yield batch


def _write(store: Store, table: pa.Table) -> None:
    content = sealed_table(table.cast(tables.ALIGNMENT), tables.ALIGNMENT)
    merged.write_jobs(store, merged.write_files(store, {FOLDER: content}), _jobs(table))


def _remove(store: Store, names: Collection[str]) -> None:
    merged.remove(store, [f"{FOLDER}/{name}.parquet" for name in names])
    merged.remove(store, [f"{merged.FOLDER}/{name}.json" for name in names if merged.is_merged(name)])


def _jobs(table: pa.Table) -> frozenset[str]:
    return frozenset(table["job"].unique().to_pylist())

"""`signsym compact`: small files of results, outcomes, examples and alignment become few large ones.

Killed at any instant it loses and duplicates nothing, and sweeps and readers may run beside it. Batches of jobs are
merged one after the other: outcomes and examples are written first and results last, as an attack job writes them; all
are read back; the list of the jobs is written; only then the small files are removed. Until then readers count each
cell once, since equal rows of a cell count as one. The next compaction completes what a killed one has begun.

Only trusted files are merged: results with all their outcomes, in files without columns of a newer version. All other
files stay as they are. Alignment is of trainings and has files of its own: see `store.merge_alignment`.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import pyarrow as pa

from orchestrator.store import alignment, merge_alignment, merged
from orchestrator.store.claims import Claims
from orchestrator.store.folder import Folder
from orchestrator.store.killed import finish_killed, remove_temporary
from orchestrator.store.leftovers import remove_leftovers
from orchestrator.store.mergeable import SCHEMAS, SMALL, Candidate, batches, candidates, path_of, read_sound, stem
from orchestrator.store.progress import Progress, silent
from orchestrator.store.store import Store, StoreError, sealed_table

#: Small files from which on `signsym status` suggests a compaction.
MANY = 500
#: The claim of a compaction, so that two never run at once.
CLAIM = "compact"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compaction:
    """The counts of a finished compaction."""

    #: Numbers of merged small files, of their jobs, and of the files that now hold them.
    files: int = 0
    jobs: int = 0
    merged_files: int = 0
    #: Number of merged files of alignment.
    alignments: int = 0
    #: Removed files that killed compactions and sweeps had left behind.
    leftovers: int = 0


def small_files(store: Store) -> int:
    """The number of small files of results, outcomes and alignment."""
    sizes = {folder: SMALL[folder] for folder in ("results", "outcomes")}
    sizes[alignment.FOLDER] = merge_alignment.SMALL
    return sum(
        entry.size < small and entry.name.endswith(".parquet") and not merged.is_merged(stem(entry.name))
        for folder, small in sizes.items()
        for entry in store.entries(folder)
        if not entry.reason and not entry.name.startswith(".")
    )


def compact(store: Store, progress: Progress = silent) -> Compaction:
    """Merge the small files of `store`; files that cannot be used are named in `store.skipped`.

    `progress` is told the merged jobs. Raises StoreError for a store that cannot be
    written, and while another compaction runs.
    """
    with Claims(store, list) as claims:
        if not claims.take([CLAIM]):
            raise StoreError(f"another compaction of {store.uri} runs; try again when it has ended")
        # Tallies need cells as numbers.
        folders = {
            name: Folder(store, name, schema, schema.names, plain=() if name == "outcomes" else schema.names)
            for name, schema in SCHEMAS.items()
        }
        leftovers = remove_leftovers(store, frozenset()) + remove_temporary(store) + finish_killed(store, folders)
        together = list(batches(sorted(candidates(store, folders, progress), key=lambda candidate: candidate.place)))
        total = sum(len(candidate.jobs) for batch in together for candidate in batch)
        alignments, repeated = merge_alignment.merge_alignment(store)
        done = Compaction(leftovers=leftovers + repeated, alignments=alignments)
        for batch in together:
            if CLAIM not in claims.held:
                raise StoreError(
                    f"{store.uri} could not be written for a while, so that its compaction ended; repeat it"
                )
            files, jobs = _merge(store, folders, batch)
            done = dataclasses.replace(
                done, files=done.files + files, jobs=done.jobs + jobs, merged_files=done.merged_files + (files > 0)
            )
            progress("jobs merged", done.jobs, total)
        for folder in folders.values():
            store.skipped |= folder.skipped
        return done


def _merge(store: Store, folders: Mapping[str, Folder], batch: Sequence[Candidate]) -> tuple[int, int]:
    """Merge the files of a batch; returns the numbers of merged files and jobs."""
    held = read_sound(
        folders, [candidate.name for candidate in batch], stay={candidate.name for candidate in batch if candidate.stay}
    )
    # Examples that stay are found by the name of their job.
    members = [
        candidate
        for candidate in batch
        if candidate.name in held
        and ("examples" in held[candidate.name] or not candidate.has_examples or candidate.jobs == {candidate.name})
    ]
    if len(members) < 2:
        return 0, 0
    data = {}
    for folder, schema in SCHEMAS.items():
        names = [candidate.name for candidate in members if folder in held[candidate.name]]
        if names:
            unsealed = any(path_of(folder, name) in folders[folder].unsealed for name in names)
            footer = {merged.UNSEALED.decode(): "yes"} if unsealed else {}
            # Cast together: one by one takes a quarter of a compaction.
            table = pa.concat_tables(held[name][folder] for name in names).cast(schema)
            data[folder] = sealed_table(table, schema, **footer)
    name = merged.write_files(store, data)
    jobs = frozenset(itertools.chain.from_iterable(candidate.jobs for candidate in members))
    merged.write_jobs(store, name, jobs)
    # Results first: none are ever without their outcomes.
    removed = 0
    for folder in ("results", "outcomes", "examples"):
        removed += merged.remove(
            store, [path_of(folder, candidate.name) for candidate in members if folder in held[candidate.name]]
        )
    merged.remove(
        store, [f"{merged.FOLDER}/{candidate.name}.json" for candidate in members if merged.is_merged(candidate.name)]
    )
    return removed, len(jobs)

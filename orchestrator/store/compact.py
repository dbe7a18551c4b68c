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
import functools
import itertools
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.store import alignment, merge_alignment, merged, tables
from orchestrator.store.arrays import single
from orchestrator.store.claims import Claims
from orchestrator.store.folder import Folder
from orchestrator.store.leftovers import remove_leftovers
from orchestrator.store.store import Store, StoreError, sealed_table
from orchestrator.store.trusted import expected, misfit, places, tally

#: The folders whose files are merged, in the order in which merged files are written: results come last.
SCHEMAS: Mapping[str, pa.Schema] = {
    "outcomes": tables.OUTCOMES,
    "examples": tables.EXAMPLES,
    "results": tables.RESULTS,
}
#: Files of fewer bytes are merged. Larger examples stay, since a page reads a whole file for a few of them.
SMALL = {"outcomes": 1 << 20, "examples": 1 << 16, "results": 1 << 20}
#: Most jobs, outcomes and bytes of examples in one merged file, since a page may need few of its curves. A merged file
#: is merged again until it has half of that.
JOBS, OUTCOMES, EXAMPLES = 2000, 1_000_000, 1 << 24
#: Small files from which on `signsym status` suggests a compaction.
MANY = 500
#: The claim of a compaction, so that two never run at once.
CLAIM = "compact"
_TEMPORARY = re.compile(r"\.merged-[0-9a-f]{32}\..+\.tmp")
#: The sort order of jobs, so that those of one curve are in few files.
_ORDER = ("task", "dataset", "backbone", "weights", "finetune", "attack", "gradient", "rule", "seed", "job")

#: The tables of one name, by folder.
Tables = dict[str, pa.Table]


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


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Candidate:
    """The files of one name that may be merged with others."""

    name: str
    place: tuple[str, ...]
    jobs: frozenset[str]
    cells: frozenset[str]
    #: The number of outcomes; bytes of examples, and whether those stay in their file.
    outcomes: int
    examples: int
    stay: bool
    unsealed: bool

    @property
    def has_examples(self) -> bool:
        """Whether there are examples of this name."""
        return self.stay or self.examples > 0


def small_files(store: Store) -> int:
    """The number of small files of results, outcomes and alignment."""
    sizes = {folder: SMALL[folder] for folder in ("results", "outcomes")}
    sizes[alignment.FOLDER] = merge_alignment.SMALL
    return sum(
        entry.size < small and entry.name.endswith(".parquet") and not merged.is_merged(_stem(entry.name))
        for folder, small in sizes.items()
        for entry in store.entries(folder)
        if not entry.reason and not entry.name.startswith(".")
    )


def compact(store: Store, progress: Callable[[int, int], None] = lambda done, of: None) -> Compaction:
    """Merge the small files of `store`; files that cannot be used are named in `store.skipped`.

    `progress` is called with the numbers of merged jobs and of all jobs. Raises StoreError for a store that cannot be
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
        leftovers = remove_leftovers(store, frozenset()) + _remove_temporary(store) + _finish_killed(store, folders)
        batches = list(_batches(sorted(_candidates(store, folders), key=lambda candidate: candidate.place)))
        total = sum(len(candidate.jobs) for batch in batches for candidate in batch)
        alignments, repeated = merge_alignment.merge_alignment(store)
        done = Compaction(leftovers=leftovers + repeated, alignments=alignments)
        for batch in batches:
            if CLAIM not in claims.held:
                raise StoreError(
                    f"{store.uri} could not be written for a while, so that its compaction ended; repeat it"
                )
            files, jobs = _merge(store, folders, batch)
            done = dataclasses.replace(
                done, files=done.files + files, jobs=done.jobs + jobs, merged_files=done.merged_files + (files > 0)
            )
            progress(done.jobs, total)
        for folder in folders.values():
            store.skipped |= folder.skipped
        return done


# Completing a killed compaction


def _remove_temporary(store: Store) -> int:
    """Remove the temporary files of killed compactions, without waiting: only one compaction runs."""
    paths = [
        f"{folder}/{entry.name}"
        for folder in (*SCHEMAS, alignment.FOLDER, merged.FOLDER)
        for entry in store.entries(folder)
    ]
    return merged.remove(store, [path for path in paths if _TEMPORARY.fullmatch(path.rpartition("/")[2])])


def _finish_killed(store: Store, folders: Mapping[str, Folder]) -> int:
    """Complete a compaction that was killed; returns the number of removed files."""
    names = {folder: set(files.names()) for folder, files in folders.items()}
    results, lists, removed = names["results"], set(merged.lists(store)), 0
    if results <= names["outcomes"]:
        # Merged files whose results never came. They are kept where results lack outcomes, which may be among them.
        unfinished = {folder: filter(merged.is_merged, names[folder] - results) for folder in ("outcomes", "examples")}
        removed += merged.remove(store, [_path(folder, name) for folder, few in unfinished.items() for name in few])
    of_alignment = {_stem(name) for name in store.names(alignment.FOLDER, ".parquet")}
    merged.remove(store, [f"{merged.FOLDER}/{name}.json" for name in lists - results - of_alignment])
    for name in filter(merged.is_merged, results - lists):
        if (held := _read(folders, [name]).get(name)) is not None:
            merged.write_jobs(store, name, held["results"]["job"].to_pylist())
            lists.add(name)
    return removed + _remove_merged(store, folders, names, sorted(lists & results))


def _remove_merged(
    store: Store, folders: Mapping[str, Folder], names: Mapping[str, set[str]], holders: Sequence[str]
) -> int:
    """Remove the small files whose rows are all in one of the merged files `holders`; returns their number."""
    holder_of: dict[str, str] = {}
    for name in holders:
        cells = Folder(store, "results", tables.RESULTS, ["cell"], plain=["cell"]).read([name])
        holder_of |= {cell: name for table in cells.values() for cell in table["cell"].to_pylist()}
    if not holder_of:
        return 0

    @functools.lru_cache(maxsize=1)
    def held(name: str) -> Tables:
        return _read(folders, [name]).get(name, {})

    sizes, removed = _sizes(store), 0
    # Results first, so that none are without their outcomes; then what has no results of its name.
    for folder in ("results", "outcomes", "examples"):
        own_names = names[folder] if folder == "results" else names[folder] - names["results"]
        small = sorted(name for name in own_names if sizes[folder].get(name, 0) < SMALL[folder])
        loose = [name for name in small if not merged.is_merged(name)]
        for batch in folders[folder].batches(loose):
            for name, table in folders[folder].read(batch).items():
                those = {holder_of.get(cell, "") for cell in table["cell"].unique().to_pylist()}
                holder = those.pop() if len(those) == 1 else ""
                if holder and name not in folders[folder].newer and _has(held(holder).get(folder), table):
                    removed += merged.remove(store, [_path(folder, name)])
                    names[folder].discard(name)
    return removed


def _has(merged_table: pa.Table | None, table: pa.Table) -> bool:
    """Whether a merged table has exactly the rows of `table` for its cells."""
    if merged_table is None:
        return False
    cells = pc.unique(table["cell"].cast(pa.string()))
    same = merged_table.filter(pc.is_in(merged_table["cell"].cast(pa.string()), value_set=cells))
    return bool(_comparable(same).equals(_comparable(table)))


def _comparable(table: pa.Table) -> pa.Table:
    """The rows in a fixed order, floats as their bits, since NaN is not equal to itself."""
    bits = {pa.float64(): pa.int64(), pa.float32(): pa.int32()}
    text = {name: pa.string() for name in table.column_names if pa.types.is_dictionary(table[name].type)}
    table = table.combine_chunks()
    columns = {name: single(table[name]) for name in table.column_names}
    columns |= {name: columns[name].cast(kind) for name, kind in text.items()}
    columns = {name: array.view(bits[array.type]) if array.type in bits else array for name, array in columns.items()}
    order = [(name, "ascending") for name in ("cell", "image") if name in columns]
    return pa.table(columns).sort_by(order)


# Merging


def _candidates(store: Store, folders: Mapping[str, Folder]) -> Iterator[_Candidate]:
    """The files that may be merged, by their results and sizes."""
    sizes, results = _sizes(store), folders["results"]
    names = [
        name
        for name in results.names()
        if all(sizes[folder].get(name, SMALL[folder]) < SMALL[folder] for folder in ("results", "outcomes"))
    ]
    for batch in results.batches(names):
        for name, table in results.read(batch).items():
            if name in results.newer or not len(table):
                continue
            first, already_merged = table.slice(0, 1).select(_ORDER).to_pylist()[0], merged.is_merged(name)
            size = sizes["examples"].get(name, 0)
            large = size >= SMALL["examples"] and not already_merged
            candidate = _Candidate(
                name=name,
                place=tuple(f"{first[column]:08}" if column == "seed" else first[column] for column in _ORDER),
                jobs=frozenset(table["job"].to_pylist()),
                cells=frozenset(table["cell"].to_pylist()),
                outcomes=pc.sum(table["n"]).as_py(),
                examples=0 if large else size,
                stay=large,
                unsealed=_path("results", name) in results.unsealed,
            )
            full = 2 * candidate.outcomes > OUTCOMES or 2 * len(candidate.jobs) > JOBS or 2 * size > EXAMPLES
            if not (already_merged and full):
                yield candidate


def _batches(candidates: Sequence[_Candidate]) -> Iterator[list[_Candidate]]:
    """Batches of candidates for one merged file each: no repeated cell, and files with and without a digest apart."""
    for unsealed in (False, True):
        batch: list[_Candidate] = []
        cells: set[str] = set()
        jobs = outcomes = examples = 0
        for candidate in candidates:
            if candidate.unsealed != unsealed or not cells.isdisjoint(candidate.cells):
                # Two sweeps computed the same cell: the second stays for the next compaction.
                continue
            jobs, outcomes = jobs + len(candidate.jobs), outcomes + candidate.outcomes
            examples += candidate.examples
            if jobs > JOBS or outcomes > OUTCOMES or examples > EXAMPLES:
                yield batch
                batch, cells = [], set()
                jobs, outcomes, examples = len(candidate.jobs), candidate.outcomes, candidate.examples
            batch.append(candidate)
            cells |= candidate.cells
        yield batch


def _merge(store: Store, folders: Mapping[str, Folder], batch: Sequence[_Candidate]) -> tuple[int, int]:
    """Merge the files of a batch; returns the numbers of merged files and jobs."""
    held = _read(
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
            unsealed = any(_path(folder, name) in folders[folder].unsealed for name in names)
            footer = {merged.UNSEALED.decode(): "yes"} if unsealed else {}
            data[folder] = sealed_table(pa.concat_tables(held[n][folder].cast(schema) for n in names), schema, **footer)
    name = merged.write_files(store, data)
    jobs = frozenset(itertools.chain.from_iterable(candidate.jobs for candidate in members))
    merged.write_jobs(store, name, jobs)
    # Results first: none are ever without their outcomes.
    removed = 0
    for folder in ("results", "outcomes", "examples"):
        removed += merged.remove(
            store, [_path(folder, candidate.name) for candidate in members if folder in held[candidate.name]]
        )
    merged.remove(
        store, [f"{merged.FOLDER}/{candidate.name}.json" for candidate in members if merged.is_merged(candidate.name)]
    )
    return removed, len(jobs)


def _read(folders: Mapping[str, Folder], names: Sequence[str], stay: Set[str] = frozenset()) -> dict[str, Tables]:
    """The tables of the trusted files of `names`: results with all their outcomes, and examples if there are any.

    Examples of the names `stay` are not read.
    """
    held: dict[str, Tables] = {}
    for batch in folders["outcomes"].batches(names):
        read = {
            folder: files.read([name for name in batch if folder != "examples" or name not in stay])
            for folder, files in folders.items()
        }
        for name in batch:
            tables_of = {folder: read[folder][name] for folder in SCHEMAS if name in read[folder]}
            newer = any(name in files.newer for files in folders.values())
            if "results" in tables_of and "outcomes" in tables_of and not newer and _sound(tables_of):
                held[name] = tables_of
    return held


def _sound(tables_of: Tables) -> bool:
    results, sums = tables_of["results"], tally(tables_of["outcomes"])
    rows = places(single(results["cell"]), sums.cells)
    return bool((rows >= 0).all()) and not misfit(expected(results), rows, sums)


def _sizes(store: Store) -> dict[str, dict[str, int]]:
    """Bytes of the files, by folder and name."""
    return {folder: {_stem(entry.name): entry.size for entry in store.entries(folder)} for folder in SCHEMAS}


def _path(folder: str, name: str) -> str:
    return f"{folder}/{name}.parquet"


def _stem(name: str) -> str:
    return name.removesuffix(".parquet")

"""Which small files of results, outcomes and examples may be merged, in which batches, and their trusted rows."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence, Set

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.store import merged, tables
from orchestrator.store.arrays import single
from orchestrator.store.folder import Folder
from orchestrator.store.progress import Progress, silent
from orchestrator.store.store import Store
from orchestrator.store.tally import expected, misfit, places, tally
from orchestrator.store.trusted import sound_together

#: The folders whose files are merged, in the order in which merged files are written: results come last.
SCHEMAS: Mapping[str, pa.Schema] = {
    "outcomes": tables.OUTCOMES,
    "examples": tables.EXAMPLES,
    "results": tables.RESULTS,
}
#: Files of fewer bytes are merged. Larger examples stay, since a page reads a whole file for a few of them.
SMALL = {"outcomes": 1 << 20, "examples": 1 << 18, "results": 1 << 20}
#: Most jobs, outcomes and bytes of examples in one merged file, since a page may need few of its curves. A merged file
#: is merged again until it has half of that.
JOBS, OUTCOMES, EXAMPLES = 2000, 1_000_000, 1 << 24
#: The sort order of jobs, so that those of one curve are in few files.
_ORDER = ("task", "dataset", "backbone", "weights", "finetune", "attack", "gradient", "rule", "seed", "job")

#: The tables of one name, by folder.
Tables = dict[str, pa.Table]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Candidate:
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


def candidates(store: Store, folders: Mapping[str, Folder], progress: Progress = silent) -> Iterator[Candidate]:
    """The files that may be merged, by their results and sizes; `progress` is told the files that were looked at."""
    sizes, results = sizes_of(store), folders["results"]
    names = [
        name
        for name in results.names()
        if all(sizes[folder].get(name, SMALL[folder]) < SMALL[folder] for folder in ("results", "outcomes"))
    ]
    read, total = 0, results.size(names)
    for batch in results.batches(names):
        progress("kB of results looked at", (read := read + results.size(batch)) // 1000, total // 1000)
        for name, table in results.read(batch).items():
            if name in results.newer or not len(table):
                continue
            first, already_merged = table.slice(0, 1).select(_ORDER).to_pylist()[0], merged.is_merged(name)
            size = sizes["examples"].get(name, 0)
            large = size >= SMALL["examples"] and not already_merged
            candidate = Candidate(
                name=name,
                place=tuple(f"{first[column]:08}" if column == "seed" else first[column] for column in _ORDER),
                jobs=frozenset(table["job"].to_pylist()),
                cells=frozenset(table["cell"].to_pylist()),
                outcomes=pc.sum(table["n"]).as_py(),
                examples=0 if large else size,
                stay=large,
                unsealed=path_of("results", name) in results.unsealed,
            )
            full = 2 * candidate.outcomes > OUTCOMES or 2 * len(candidate.jobs) > JOBS or 2 * size > EXAMPLES
            if not (already_merged and full):
                yield candidate


def batches(candidates: Sequence[Candidate]) -> Iterator[list[Candidate]]:
    """Batches of candidates for one merged file each: no repeated cell, and files with and without a digest apart."""
    for unsealed in (False, True):
        batch: list[Candidate] = []
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


def read_sound(folders: Mapping[str, Folder], names: Sequence[str], stay: Set[str] = frozenset()) -> dict[str, Tables]:
    """The tables of the trusted files of `names`: results with all their outcomes, and examples if there are any.

    Examples of the names `stay` are not read.
    """
    held: dict[str, Tables] = {}
    for batch in folders["outcomes"].batches(names):
        read = {
            folder: files.read([name for name in batch if folder != "examples" or name not in stay])
            for folder, files in folders.items()
        }
        together = sound_together(read["results"], read["outcomes"])[1]
        for name in batch:
            tables_of = {folder: read[folder][name] for folder in SCHEMAS if name in read[folder]}
            newer = any(name in files.newer for files in folders.values())
            if (
                "results" in tables_of
                and "outcomes" in tables_of
                and not newer
                and (name in together or _sound(tables_of))
            ):
                held[name] = tables_of
    return held


def _sound(tables_of: Tables) -> bool:
    results, sums = tables_of["results"], tally(tables_of["outcomes"])
    rows = places(single(results["cell"]), sums.cells)
    return bool((rows >= 0).all()) and not misfit(expected(results), rows, sums)


def sizes_of(store: Store) -> dict[str, dict[str, int]]:
    """Bytes of the files, by folder and name."""
    return {folder: {stem(entry.name): entry.size for entry in store.entries(folder)} for folder in SCHEMAS}


def path_of(folder: str, name: str) -> str:
    return f"{folder}/{name}.parquet"


def stem(name: str) -> str:
    return name.removesuffix(".parquet")

"""Which results can be trusted: those whose stored outcomes add up to them. A job is done when all of its results are.

Outcomes are in the file with the name of their results or, where files were merged, in any file whose name no file of
results has.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.store import merged, tables
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.files import Files
from orchestrator.store.folder import Folder
from orchestrator.store.rows import ROUNDING

#: The end of each reason for results that cannot be trusted.
NOT_DONE = "its cells count as not done"
#: Most outcomes of files whose rows are checked together.
SMALL_ROWS = 500_000
#: The columns that a tally needs.
_TALLIED = ["cell", "image", "robust", "ap"]
#: The cells of some results, their numbers of images and their values.
Expected = tuple[pa.Array, NDArray[np.int64], NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class OutcomeTally:
    """The number and mean of the outcomes of some cells."""

    cells: pa.Array
    #: For each cell its number of different images, and the mean of its outcomes.
    counts: NDArray[np.int64]
    means: NDArray[np.float64]


@dataclasses.dataclass(frozen=True)
class SoundHalf:
    """What one process has read of a store's results for another: trusted rows, the files that they are all of, and
    those among them that have no digest.
    """

    tables: list[pa.Table]
    names: set[str]
    unsealed: set[str]


def sound_results(
    store: Files, columns: Sequence[str], half: Callable[[], SoundHalf] | None = None
) -> Iterator[pa.Table]:
    """Some columns of the trusted results, several files at a time; the others are named in `store.skipped`.

    Every file of results and of outcomes is read and checked. Files that are merged meanwhile are read in their new
    form, so that a cell may be repeated. `half` waits for what `sound_half` has read in another process.
    """
    results, outcomes = _folders(store)
    seen: set[str] = set()
    #: Cells of merged results that can be trusted.
    trusted: list[pa.Array] = []
    listed = results.names()
    if half is not None:
        # The other process reads its half of them meanwhile.
        names = [name for name in listed if not _in_half(name)]
        yield from _sound(results, outcomes, names, listed, trusted, columns)
        read = half()
        seen = {*names, *read.names}
        store.unsealed |= read.unsealed
        yield from read.tables
    for _ in range(merged.LOOKS):
        names = [name for name in listed if name not in seen]
        seen.update(names)
        yield from _sound(results, outcomes, names, listed, trusted, columns)
        if not results.vanished:
            break
        results.vanished.clear()
        listed = results.names()
    for folder in (results, outcomes):
        store.skipped |= folder.skipped
        store.unsealed |= folder.unsealed


def sound_half(store: Files, columns: Sequence[str]) -> SoundHalf:
    """Some columns of the trusted results among half of a store's small files: of those that are as they should be."""
    results, outcomes = _folders(store)
    names, half = [name for name in results.names() if _in_half(name)], SoundHalf([], set(), set())
    outcomes.names()
    for few in outcomes.batches(names):
        batch, paired = results.read(few), outcomes.read(few)
        # Whatever is wrong with the others, the other process says.
        if len(batch) == len(few) and (sound := _sound_together(batch, paired)) is not None:
            half.tables.append(sound.select(columns).combine_chunks())
            half.names.update(few)
    half.unsealed.update(results.unsealed | outcomes.unsealed)
    return half


def _in_half(name: str) -> bool:
    """Whether a file belongs to the half of another process: about every second one that no merging has made."""
    return name[-1:] in "13579bdf" and not merged.is_merged(name)


def _folders(store: Files) -> tuple[Folder, Folder]:
    """The folders of results and of outcomes. All columns are read, since only these are checked."""
    results = Folder(store, "results", tables.RESULTS, tables.RESULTS.names, plain=tables.RESULTS.names)
    return results, Folder(store, "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)


def _sound(
    results: Folder,
    outcomes: Folder,
    names: Sequence[str],
    listed: Sequence[str],
    trusted: list[pa.Array],
    columns: Sequence[str],
) -> Iterator[pa.Table]:
    """Some columns of the trusted results in the files `names` of those `listed`."""
    if not names:
        return
    outcome_names = set(outcomes.names())
    unmatched: dict[str, pa.Table] = {}
    # By the sizes of the outcomes, which are larger.
    for few in outcomes.batches(names):
        batch = results.read(few)
        paired = outcomes.read([name for name in batch if name in outcome_names])
        if (sound := _sound_together(batch, paired)) is not None:
            yield sound.select(columns).combine_chunks()
            continue
        for name, table in batch.items():
            if name in outcomes.broken:
                continue
            if name not in paired:
                unmatched[name] = table
                continue
            sums = tally(paired[name])
            positions = places(single(table["cell"]), sums.cells)
            if reason := misfit(expected(table), positions, sums):
                outcomes.skip(name, reason)
                continue
            if (positions < 0).any():
                unmatched[name] = table.filter(pa.array(positions < 0))
                table = table.filter(pa.array(positions >= 0))
            if merged.is_merged(name):
                trusted.append(single(table["cell"]))
            yield table.select(columns)
    if unmatched:
        rows = _matched_elsewhere(outcomes, unmatched, listed, pa.chunked_array(trusted, pa.string()))
        yield from (table.select(columns) for table in rows)


def _sound_together(batch: dict[str, pa.Table], paired: dict[str, pa.Table]) -> pa.Table | None:
    """The results of small files as one table, where all have their outcomes and no others: one by one takes longer.

    None where that does not hold for every file of the batch.
    """
    if len(batch) < 2 or batch.keys() != paired.keys() or sum(map(len, paired.values())) > SMALL_ROWS:
        return None
    if any(map(merged.is_merged, batch)):
        return None
    together = pa.concat_tables(batch.values())
    results = together.select(["cell", "n", "value"]).combine_chunks()
    outcomes = pa.concat_tables(paired[name] for name in batch).select(_TALLIED).combine_chunks()
    if not len(results) or not len(outcomes):
        return None
    result_files, outcome_files = (
        np.repeat(np.arange(len(batch)), [len(tables_of[name]) for name in batch]) for tables_of in (batch, paired)
    )
    sums, codes = tally(outcomes), to_numpy(single(outcomes["cell"]).indices)
    positions = places(single(results["cell"]), sums.cells)
    if len(sums.cells) != len(single(outcomes["cell"]).dictionary) or (positions < 0).any():
        return None
    # The outcomes of a cell must be in one file, that of its results.
    file_of_cell = np.zeros(len(sums.cells), dtype=np.int64)
    file_of_cell[codes] = outcome_files
    if (file_of_cell[codes] != outcome_files).any() or (file_of_cell[positions] != result_files).any():
        return None
    if len(np.unique(positions)) < len(positions) or misfit(expected(results), positions, sums):
        return None
    return together


def _matched_elsewhere(
    outcomes: Folder, unmatched: dict[str, pa.Table], names: Sequence[str], trusted: pa.ChunkedArray
) -> Iterator[pa.Table]:
    """The trusted rows of results without outcomes of the same name: those whose outcomes are in other files."""
    other_outcomes = _joined(outcomes, sorted(sharing(outcomes.names(), names)))
    for name, table in unmatched.items():
        positions = np.full(len(table), -1)
        if other_outcomes is not None:
            positions = places(single(table["cell"]), other_outcomes.cells)
            if reason := misfit(expected(table), positions, other_outcomes, exclusive=False):
                outcomes.skip(name, reason)
                continue
        yield table.filter(pa.array(positions >= 0))
        # A row that a merged file has is not missing: a killed compaction, or a late sweep, has left a copy here.
        missing_rows = table.filter(pa.array(positions < 0))
        missing_rows = missing_rows.filter(pc.invert(pc.is_in(missing_rows["cell"], value_set=trusted)))
        if len(missing_rows):
            outcomes.skip(name, missing(len(missing_rows), len(table)))


def sharing(outcomes: Iterable[str], results: Iterable[str]) -> set[str]:
    """The files with outcomes of results of other names: merged ones, and those whose name no file of results has."""
    files = set(outcomes)
    return (files - set(results)) | {name for name in files if merged.is_merged(name)}


def tally(outcomes: pa.Table) -> OutcomeTally:
    """The tally of a table of outcomes, whose cells are dictionary-encoded."""
    column = single(outcomes["cell"])
    codes, images = to_numpy(column.indices), to_numpy(single(outcomes["image"]))
    robust, precision = single(outcomes["robust"]), single(outcomes["ap"])
    scores = to_numpy(robust).astype(np.float64)
    if precision.null_count < len(precision):
        scores = np.where(to_numpy(precision.is_valid()), to_numpy(precision), scores)
    pairs = (codes.astype(np.int64) << 32) + images
    if not (pairs[1:] > pairs[:-1]).all():
        # Of an image that is repeated in a cell the first row counts.
        order = np.argsort(pairs, kind="stable")
        pairs = pairs[order]
        order = order[np.append(True, pairs[1:] != pairs[:-1])]
        codes, scores = codes[order], scores[order]
    cells, counts = column.dictionary, np.bincount(codes, minlength=len(column.dictionary))
    sums = np.bincount(codes, scores, len(counts))
    if not counts.all():
        # Files that were read together share a dictionary.
        used = np.flatnonzero(counts)
        cells, counts, sums = cells.take(to_arrow(used)), counts[used], sums[used]
    return OutcomeTally(cells, counts, sums / counts)


def expected(results: pa.Table) -> Expected:
    """The cells, numbers and means that the outcomes of some results must have."""
    return single(results["cell"]), to_numpy(single(results["n"])), to_numpy(single(results["value"]))


def places(cells: pa.Array, all_cells: pa.Array) -> NDArray[np.int64]:
    """The position of each of `cells` in `all_cells`; -1 where it is missing."""
    if all_cells.equals(cells):
        return np.arange(len(cells))
    positions = pc.index_in(cells, value_set=all_cells)
    return to_numpy(pc.fill_null(positions, -1) if positions.null_count else positions).astype(np.int64)


def misfit(results: Expected, positions: NDArray[np.int64], sums: OutcomeTally, exclusive: bool = True) -> str:
    """Why outcomes do not belong to `results`, whose positions in `sums` are `positions`; "" where they do.

    With `exclusive` there must be no outcomes of other results.
    """
    cells, n, values = results
    rows = np.flatnonzero(positions >= 0)
    counts, means = sums.counts[positions[rows]], sums.means[positions[rows]]
    wrong = np.flatnonzero((counts != n[rows]) | ~(np.abs(means - values[rows]) <= ROUNDING))
    if len(wrong):
        row = int(rows[wrong[0]])
        words = f"cell {cells[row].as_py()[:16]} has {counts[wrong[0]]} outcomes of mean {means[wrong[0]]:g}, its"
        return f"{words} result is {values[row]:g}, n = {n[row]}; {NOT_DONE}"
    if exclusive and (more := int((sums.counts > 0).sum()) - len(np.unique(positions[rows]))):
        return f"{more} of its cells have no result in the file of the same name; {NOT_DONE}"
    return ""


def missing(lost: int, results: int) -> str:
    """The reason for results without outcomes in any file."""
    return f"missing: {lost} of the {results} results of the same name have no outcomes; {NOT_DONE}"


def _joined(outcomes: Folder, names: Sequence[str]) -> OutcomeTally | None:
    """The tally of merged files together."""
    tallies = []
    for batch in outcomes.batches(names):
        tallies += [tally(table) for table in outcomes.read(batch).values()]
    if not tallies:
        return None
    cells = pa.concat_arrays([sums.cells for sums in tallies])
    return OutcomeTally(
        cells, np.concatenate([sums.counts for sums in tallies]), np.concatenate([sums.means for sums in tallies])
    )

"""Which results can be trusted: those whose stored outcomes add up to them. A job is done when all of its results are.

Outcomes are in the file with the name of their results or, where files were merged, in any file whose name no file of
results has.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.store import merged, tables
from orchestrator.store.arrays import flags, single
from orchestrator.store.filerows import FileRows
from orchestrator.store.files import Files
from orchestrator.store.folder import Folder
from orchestrator.store.progress import Progress, silent
from orchestrator.store.tally import COLUMNS, expected, joined, misfit, missing, places, sound_files, tally


def sound_results(store: Files, columns: Sequence[str], progress: Progress = silent) -> Iterator[pa.Table]:
    """Some columns of the trusted results, several files at a time; the others are named in `store.skipped`.

    Every file of results and of outcomes is read and checked. Files that are merged meanwhile are read in their new
    form, so that a cell may be repeated. `progress` is told how much was read.
    """
    # All columns are read, since only these are checked.
    results = Folder(store, "results", tables.RESULTS, tables.RESULTS.names, plain=tables.RESULTS.names)
    outcomes = Folder(store, "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)
    seen: set[str] = set()
    #: Cells of merged results that can be trusted.
    trusted: list[pa.Array] = []
    listed = results.names()
    for _ in range(merged.LOOKS):
        names = [name for name in listed if name not in seen]
        seen.update(names)
        yield from _sound(results, outcomes, names, listed, trusted, columns, progress)
        if not results.vanished:
            break
        results.vanished.clear()
        listed = results.names()
    for folder in (results, outcomes):
        store.skipped |= folder.skipped
        store.unsealed |= folder.unsealed


def _sound(
    results: Folder,
    outcomes: Folder,
    names: Sequence[str],
    listed: Sequence[str],
    trusted: list[pa.Array],
    columns: Sequence[str],
    progress: Progress,
) -> Iterator[pa.Table]:
    """Some columns of the trusted results in the files `names` of those `listed`."""
    if not names:
        return
    outcome_names = set(outcomes.names())
    unmatched: dict[str, pa.Table] = {}
    # By the sizes of the outcomes, which are larger, and not by files: a merged one has the rows of thousands.
    read, total = 0, outcomes.size(names)
    for few in outcomes.batches(names):
        batch = results.read(few)
        paired = outcomes.read([name for name in batch if name in outcome_names])
        together, sound = sound_together(batch, paired)
        yield together.select(columns)
        for name in [name for name in batch if name not in sound]:
            table = batch[name]
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
                unmatched[name] = table.filter(flags(positions < 0))
                table = table.filter(flags(positions >= 0))
            if merged.is_merged(name):
                trusted.append(single(table["cell"]))
            yield table.select(columns)
        read += outcomes.size(few)
        progress("kB of outcomes read with their results", read // 1000, total // 1000)
    if unmatched:
        rows = _matched_elsewhere(outcomes, unmatched, listed, pa.chunked_array(trusted, pa.string()))
        yield from (table.select(columns) for table in rows)


def sound_together(batch: FileRows, paired: FileRows) -> tuple[pa.Table, set[str]]:
    """The rows of those of some small files that have all their outcomes and no others, with the files' names.

    Checked together: one by one takes most of the time. What is wrong with the others is left to be found.
    """
    names = [name for name in paired.small() if name in batch and not merged.is_merged(name)]
    batch, paired = batch.only(names), paired.only(names)
    if len(names) < 2:
        return tables.RESULTS.empty_table(), set()
    sizes, outcome_sizes = [*batch.lengths.values()], [*paired.lengths.values()]
    table = batch.together(tables.RESULTS.names)
    sound = sound_files(expected(table), sizes, paired.together(COLUMNS), outcome_sizes)
    if not sound.all():
        table = table.filter(flags(np.repeat(sound, sizes)))
    return table, set(itertools.compress(names, sound.tolist()))


def _matched_elsewhere(
    outcomes: Folder, unmatched: dict[str, pa.Table], names: Sequence[str], trusted: pa.ChunkedArray
) -> Iterator[pa.Table]:
    """The trusted rows of results without outcomes of the same name: those whose outcomes are in other files."""
    shared = outcomes.batches(sorted(sharing(outcomes.names(), names)))
    tallies = [tally(table) for few in shared for table in outcomes.read(few).values()]
    other_outcomes = joined(tallies) if tallies else None
    for name, table in unmatched.items():
        positions = np.full(len(table), -1)
        if other_outcomes is not None:
            positions = places(single(table["cell"]), other_outcomes.cells)
            if reason := misfit(expected(table), positions, other_outcomes, exclusive=False):
                outcomes.skip(name, reason)
                continue
        yield table.filter(flags(positions >= 0))
        # A row that a merged file has is not missing: a killed compaction, or a late sweep, has left a copy here.
        missing_rows = table.filter(flags(positions < 0))
        missing_rows = missing_rows.filter(pc.invert(pc.is_in(missing_rows["cell"], value_set=trusted)))
        if len(missing_rows):
            outcomes.skip(name, missing(len(missing_rows), len(table)))


def sharing(outcomes: Iterable[str], results: Iterable[str]) -> set[str]:
    """The files with outcomes of results of other names: merged ones, and those whose name no file of results has."""
    files = set(outcomes)
    return (files - set(results)) | {name for name in files if merged.is_merged(name)}

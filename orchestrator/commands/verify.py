"""`signsym status --verify`: reads every file of a store and names each one that is not as it was written."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from orchestrator.commands.progress import Lines
from orchestrator.engine.sweep import COMPLETE, FAILED, show_skipped
from orchestrator.gridfile.stored import grid_names, grid_text
from orchestrator.store import merged, tables
from orchestrator.store.folder import Folder
from orchestrator.store.notes import Notes
from orchestrator.store.reasons import printable, reason_of
from orchestrator.store.store import Store
from orchestrator.store.trusted import sound_results

#: The folders of a store.
_KNOWN = {"results", "outcomes", "examples", "alignment", "failures"}
_KNOWN |= {"splits", "models", "grids", "sweeps", "events", "merged", "notes"}
_TABLES = {"examples": tables.EXAMPLES, "alignment": tables.ALIGNMENT, "failures": tables.FAILURES}


def verify(store: Store, console: Console) -> int:
    """Read every file; print which are not as they were written and which have no digest; status 1 for the former."""
    total = sum(len(store.names(folder, "")) for folder in _KNOWN - {"models"})
    total += sum(map(len, store.model_folders().values()))
    count, progress = 0, Lines(console)
    for files in _steps(store):
        count += files
        progress("files read", count, total)
    show_skipped(store.skipped, console, len(store.skipped))
    for name in sorted(store.unsealed):
        console.print(f"no digest, from before files had one: {name}", soft_wrap=True)
    # Imported here: the state of a store is told without it.
    from orchestrator.results.live_store import LiveStore

    for sentence in LiveStore(store.uri, at_once=True).snapshot.index.computed_twice():
        console.print(sentence, soft_wrap=True)
    counts = f"{len(store.skipped):,} damaged, foreign or missing, {len(store.unsealed):,} without a digest"
    console.print(f"{total:,} files read: {counts}, all others as written", soft_wrap=True)
    return FAILED if store.skipped else COMPLETE


def _steps(store: Store) -> Iterator[int]:
    """Read all files batch by batch; yields the number of files in each batch."""
    for table in sound_results(store, ["job"]):
        # A job has a file of results and one of outcomes, unless they were merged.
        yield 2 * len(table["job"].unique())
    # Outcomes without results, of a sweep that was killed, enter no number; damage in them is named all the same.
    outcomes = Folder(store, "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)
    names = sorted(
        set(outcomes.names()) - {name.removesuffix(".parquet") for name in store.names("results", ".parquet")}
    )
    yield from _read_tables(store, outcomes, names)
    for name, schema in _TABLES.items():
        folder = Folder(store, name, schema, schema.names)
        yield from _read_tables(store, folder, folder.names())
    yield from _check_models(store)
    files, strangers = store.listing(merged.FOLDER, ".json")
    store.skipped |= strangers
    yield from _check_each(
        store, [f"{merged.FOLDER}/{file}" for file in files], lambda path: merged.check_list(store, path)
    )
    files, strangers = store.listing("splits", ".parquet")
    store.skipped |= strangers
    yield from _check_each(store, [f"splits/{file}" for file in files], lambda path: _check_splits(store, path))
    yield from _check_each(
        store, [f"grids/{name}.yaml" for name in grid_names(store)], lambda path: grid_text(store, path)
    )
    notes = Notes(store)
    notes.refresh()
    store.skipped |= notes.skipped
    yield len(notes.all)
    for entry in store.entries(""):
        if entry.name not in _KNOWN and not entry.name.startswith("."):
            store.skipped[printable(entry.name)] = "it does not belong to a store"


def _read_tables(store: Store, folder: Folder, names: list[str]) -> Iterator[int]:
    for batch in folder.batches(names):
        folder.read(batch)
        yield len(batch)
    store.skipped |= folder.skipped
    store.unsealed |= folder.unsealed


def _check_each(store: Store, paths: list[str], read: Callable[[str], object]) -> Iterator[int]:
    for path in paths:
        try:
            read(path)
        except Exception as error:
            # One broken file must not hide the state of the rest.
            store.skipped[path] = reason_of(error).removeprefix(f"{path}: ")
        yield 1


def _check_splits(store: Store, path: str) -> None:
    # Imported here: data sets come with torch.
    from orchestrator.store import fingerprints

    if "-" in path:
        fingerprints.load(store, path)
    else:
        # A store from before fingerprints has only the positions of the images.
        pq.read_table(pa.BufferReader(store.read_sealed(path)), schema=tables.SPLITS)


def _check_models(store: Store) -> Iterator[int]:
    records, _ = store.models()
    for key, names in store.model_folders().items():
        if key in records:
            store.check_model(key)
        if "progress.safetensors" in names:
            store.load_progress(key)
        yield len(names)

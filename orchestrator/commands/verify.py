"""`signsym status --verify`: every file of a store is read, and each that is not what was written is named."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import pyarrow as pa
import pyarrow.parquet as pq
from rich.console import Console

from orchestrator.engine.sweep import COMPLETE, FAILED, show_skipped
from orchestrator.gridfile.stored import grid_names, grid_text
from orchestrator.store import tables
from orchestrator.store.folder import AT_ONCE, Folder
from orchestrator.store.reasons import printable, reason_of
from orchestrator.store.store import Store
from orchestrator.store.trusted import sound_results

#: Seconds between two lines about how far it is.
PERIOD = 10.0
#: What sweeps leave in a store, beside the tables.
_KNOWN = {"results", "outcomes", "examples", "failures", "splits", "models", "grids", "sweeps", "events"}
_TABLES = {"examples": tables.EXAMPLES, "failures": tables.FAILURES}


def verify(store: Store, console: Console) -> int:
    """Read every file and print which are not what was written and which have no digest; status 1 for the former."""
    total = sum(len(store.names(folder, "")) for folder in _KNOWN - {"models"})
    total += sum(map(len, store.model_folders().values()))
    count, spoken = 0, time.monotonic()
    for files in _steps(store):
        count += files
        if time.monotonic() - spoken > PERIOD:
            spoken = time.monotonic()
            console.print(f"read {min(count, total):,} of {total:,} files", highlight=False)
    show_skipped(store.skipped, console)
    for name in sorted(store.unsealed):
        console.print(f"no digest, from before files had one: {name}", highlight=False, soft_wrap=True, markup=False)
    counts = f"{len(store.skipped):,} damaged, foreign or missing, {len(store.unsealed):,} without a digest"
    console.print(f"{total:,} files read: {counts}, the others as they were written", highlight=False, soft_wrap=True)
    return FAILED if store.skipped else COMPLETE


def _steps(store: Store) -> Iterator[int]:
    """Read everything, some files at a time, whose number comes out."""
    for _ in sound_results(store, ["cell"]):
        yield 2
    # Outcomes whose results never came, since their sweep was killed, are no part of a number; damage is named all the
    # same.
    alone = Folder(store, "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)
    names = sorted(set(alone.names()) - {name.removesuffix(".parquet") for name in store.names("results", ".parquet")})
    yield from _read(store, alone, names)
    for name, schema in _TABLES.items():
        folder = Folder(store, name, schema, schema.names)
        yield from _read(store, folder, folder.names())
    yield from _models(store)
    files, strangers = store.listing("splits", ".parquet")
    store.skipped |= strangers
    yield from _each(store, [f"splits/{file}" for file in files], lambda path: _splits(store, path))
    yield from _each(store, [f"grids/{name}.yaml" for name in grid_names(store)], lambda path: grid_text(store, path))
    for entry in store.entries(""):
        if entry.name not in _KNOWN and not entry.name.startswith("."):
            store.skipped[printable(entry.name)] = "it is no part of a store"


def _read(store: Store, folder: Folder, names: list[str]) -> Iterator[int]:
    for start in range(0, len(names), AT_ONCE):
        some = names[start : start + AT_ONCE]
        folder.read(some)
        yield len(some)
    store.skipped |= folder.skipped
    store.unsealed |= folder.unsealed


def _each(store: Store, paths: list[str], read: Callable[[str], object]) -> Iterator[int]:
    for path in paths:
        try:
            read(path)
        except Exception as error:
            # Whatever is wrong with one file must not hide the others: it is named instead.
            store.skipped[path] = reason_of(error).removeprefix(f"{path}: ")
        yield 1


def _splits(store: Store, path: str) -> None:
    # Imported here: data sets come with torch.
    from orchestrator.store import fingerprints

    if "-" in path:
        fingerprints.load(store, path)
    else:
        # Of a store from before fingerprints: numbers of images alone.
        pq.read_table(pa.BufferReader(store.read_sealed(path)), schema=tables.SPLITS)


def _models(store: Store) -> Iterator[int]:
    records, _ = store.models()
    for key, names in store.model_folders().items():
        if key in records:
            store.check_model(key)
        if "progress.safetensors" in names:
            store.load_progress(key)
        yield len(names)

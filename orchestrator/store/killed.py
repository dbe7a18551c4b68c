"""What a compaction that was killed has left behind: temporary files, lists that are missing, and repeated rows."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.store import alignment, merged, tables
from orchestrator.store.arrays import single
from orchestrator.store.folder import Folder
from orchestrator.store.mergeable import SCHEMAS, SMALL, Tables, path_of, read_sound, sizes_of, stem
from orchestrator.store.store import Store

_TEMPORARY = re.compile(r"\.merged-[0-9a-f]{32}\..+\.tmp")


def remove_temporary(store: Store) -> int:
    """Remove the temporary files of killed compactions, without waiting: only one compaction runs."""
    paths = [
        f"{folder}/{entry.name}"
        for folder in (*SCHEMAS, alignment.FOLDER, merged.FOLDER)
        for entry in store.entries(folder)
    ]
    return merged.remove(store, [path for path in paths if _TEMPORARY.fullmatch(path.rpartition("/")[2])])


def finish_killed(store: Store, folders: Mapping[str, Folder]) -> int:
    """Complete a compaction that was killed; returns the number of removed files."""
    names = {folder: set(files.names()) for folder, files in folders.items()}
    results, lists, removed = names["results"], set(merged.lists(store)), 0
    if results <= names["outcomes"]:
        # Merged files whose results never came. They are kept where results lack outcomes, which may be among them.
        unfinished = {folder: filter(merged.is_merged, names[folder] - results) for folder in ("outcomes", "examples")}
        removed += merged.remove(store, [path_of(folder, name) for folder, few in unfinished.items() for name in few])
    of_alignment = {stem(name) for name in store.names(alignment.FOLDER, ".parquet")}
    merged.remove(store, [f"{merged.FOLDER}/{name}.json" for name in lists - results - of_alignment])
    for name in filter(merged.is_merged, results - lists):
        if (held := read_sound(folders, [name]).get(name)) is not None:
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
        return read_sound(folders, [name]).get(name, {})

    sizes, removed = sizes_of(store), 0
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
                    removed += merged.remove(store, [path_of(folder, name)])
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

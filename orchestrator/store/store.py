"""The store: the directory or bucket with results, models and failures, the only record of which jobs are done.

A file is written completely or not at all. No file is a pickle. A file that a number comes from contains its own
digest, which is checked whenever it is read (see `signsym_core.seal`). Damaged, incomplete and foreign files are named
and skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from safetensors import SafetensorError

from orchestrator.store import records, rowcopy, tables
from orchestrator.store.files import Files
from orchestrator.store.files import StoreError as StoreError
from orchestrator.store.folder import Folder
from orchestrator.store.reasons import FOLDER, printable, reason_of
from signsym_core import seal
from signsym_core.seal import DamagedError as DamagedError

if TYPE_CHECKING:
    # Imported where tensors are read or written, so that a sweep's driver does not load torch; likewise pandas.
    import pandas as pd
    from torch import Tensor

#: Files below a model's folder.
_MODEL, _CODES, _RECORD, _PROGRESS = "model.safetensors", "codes.safetensors", "record.json", "progress.safetensors"

#: Rows of a table up to which it is written without dictionaries and statistics.
FEW = 64
#: Levels and folders per level that are searched for stores below a folder that is none, and how many are named.
LEVELS, WIDTH, NAMED = 3, 200, 10


class Store(Files):
    """A store at a local path or a URI that pyarrow knows, such as s3://bucket/sweeps.

    >>> import tempfile
    >>> from orchestrator.store import Store, tables
    >>> store = Store(tempfile.mkdtemp())
    >>> failure = {"job": "3f9a", "title": "attack pgd usf", "attempt": 2, "error": "OSError: disk full"}
    >>> store.write_table("failures", "3f9a", [failure], tables.FAILURES)
    >>> store.names("failures", ".parquet")
    ['3f9a.parquet']
    >>> store.table("failures", tables.FAILURES, ["job", "error"]).to_pylist()
    [{'job': '3f9a', 'error': 'OSError: disk full'}]
    >>> len(store.results())  # what `signsym sweep` has measured, as a frame: a row for each cell
    0
    """

    def is_store(self) -> bool:
        """Whether the place has grids or results of a sweep."""
        return bool(self.names("grids", ".yaml") or self.names("results", ".parquet"))

    def stores_below(self) -> list[str]:
        """Some of the local stores below this folder, for people who named a parent folder instead of a store."""
        below = [] if self.folder is None or not self.folder.is_dir() else [self.folder]
        stores: list[str] = []
        for _ in range(LEVELS):
            below = [place for folder in below[:WIDTH] for place in sorted(_folders(folder))]
            stores += [str(place) for place in below if (place / "grids").is_dir() and Store(str(place)).is_store()]
        return stores[:NAMED]

    # Tables

    def write_table(self, folder: str, key: str, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        """Put rows into FOLDER/KEY.parquet."""
        table = pa.Table.from_pylist(list(rows), schema=schema)
        self.write(f"{folder}/{key}.parquet", sealed_table(table, schema, copy=rowcopy.written(table)))

    def table(self, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a folder's files; broken and foreign files are left out and named in `skipped`."""
        file_tables = list(self.iter_tables(folder, schema, columns))
        if file_tables:
            return pa.concat_tables(file_tables)
        return pa.Table.from_batches([], pa.schema([schema.field(name) for name in columns or schema.names]))

    def iter_tables(self, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of a folder's files, file by file; broken and foreign files are left out and named in `skipped`."""
        files = Folder(self, folder, schema, columns or schema.names, plain=schema.names)
        for table in files.iter_tables():
            yield table.cast(files.columns)
        self.skipped |= files.skipped
        self.unsealed |= files.unsealed

    def results(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row for each cell that has outcomes; of a cell that two sweeps computed, the one finished first."""
        from orchestrator.store.trusted import sound_results

        names = list(columns or tables.RESULTS.names)
        needed = list(dict.fromkeys([*names, "cell", "finished_at"]))
        schema = pa.schema([tables.RESULTS.field(name) for name in needed])
        frame: pd.DataFrame = pa.concat_tables([schema.empty_table(), *sound_results(self, needed)]).to_pandas()
        frame = frame.sort_values("finished_at", kind="stable").drop_duplicates("cell").reset_index(drop=True)
        return frame[names]

    def outcomes(self) -> pd.DataFrame:
        """A row for each cell and image, once."""
        frame: pd.DataFrame = self.table("outcomes", tables.OUTCOMES).to_pandas()
        return frame.drop_duplicates(["cell", "image"]).reset_index(drop=True)

    # Models

    def save_model(self, key: str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Write a finished model. Its record is written last: it marks the model as done."""
        self._save_tensors(key, _MODEL, tensors)
        self.write(f"models/{key}/{_RECORD}", records.written(record))

    def load_model(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A finished model's tensors and record. Raises DamagedError where a file is not as it was saved."""
        record = self.record(key)
        return self._load_tensors(key, _MODEL)[0], record

    def record(self, key: str) -> dict[str, Any]:
        """The record of a finished model. Raises DamagedError for a file that is no record of this model."""
        path = f"models/{key}/{_RECORD}"
        try:
            return records.read(self.read_sealed(path), key)
        except ValueError as error:
            raise DamagedError(f"{path}: {error}") from error

    def save_codes(self, key: str, codes: dict[str, Tensor]) -> None:
        """Write the packed codes of a model's database and training images beside the model, before its record."""
        self._save_tensors(key, _CODES, codes)

    def load_codes(self, key: str) -> dict[str, Tensor]:
        """The codes that `save_codes` wrote. Raises DamagedError where the file is not as it was saved."""
        return self._load_tensors(key, _CODES)[0]

    def model_folders(self) -> dict[str, set[str]]:
        """The names of the files of each key below models/. Other entries are named in `skipped`."""
        folders: dict[str, set[str]] = {}
        for entry in self.entries("models", deep=True):
            key, _, name = entry.name.partition("/")
            if entry.reason == FOLDER and not name:
                folders.setdefault(key, set())
            elif name and not entry.reason and entry.name.isprintable():
                folders.setdefault(key, set()).add(name)
            elif not name.startswith(".") and not key.startswith("."):
                self.skipped[printable(f"models/{entry.name}")] = entry.reason or "it belongs to no model"
        return folders

    def check_model(self, key: str, codes: bool = False) -> bool:
        """Whether a finished model's weights are as they were saved, and its codes, which may be missing unless `codes`
        requires them. A file that is not is named in `skipped`.
        """
        for name in (_MODEL, _CODES):
            path = f"models/{key}/{name}"
            try:
                if name == _MODEL or codes or self.exists([path]):
                    self._load_tensors(key, name)
            except FileNotFoundError:
                self.skipped[path] = "missing: its model has a record and not this file"
                return False
            except (OSError, ValueError) as error:
                self.skipped[path] = reason_of(error).removeprefix(f"{path}: ")
                return False
        return True

    def models(self) -> tuple[dict[str, dict[str, Any]], set[str]]:
        """The readable records, by key, and the keys of the models that are done: those that also have weights.

        A record that cannot be read is named in `skipped`.
        """
        model_records, folders = {}, self.model_folders()
        for key, names in folders.items():
            if _RECORD in names:
                try:
                    model_records[key] = self.record(key)
                except FileNotFoundError:
                    continue
                except (ValueError, OSError) as error:
                    self.skipped[f"models/{key}/{_RECORD}"] = reason_of(error)
        return model_records, {key for key in model_records if _MODEL in folders[key]}

    def records(self) -> dict[str, dict[str, Any]]:
        """The readable records of all models, by key."""
        return self.models()[0]

    def done_models(self) -> set[str]:
        """Keys of the finished pre-training and fine-tune jobs."""
        return self.models()[1]

    def save_progress(self, key: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Replace the checkpoint of an unfinished model."""
        self._save_tensors(key, _PROGRESS, tensors, state=json.dumps(state))

    def load_progress(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint of an unfinished model; None where there is none, or a damaged one.

        A damaged checkpoint costs its epochs again and changes no number; it is named in `skipped`.
        """
        try:
            tensors, metadata = self._load_tensors(key, _PROGRESS)
            state: dict[str, Any] = records.parsed(metadata["state"].encode())
            kept = {"epoch": int(state["epoch"]), "history": list(state["history"])}
            return tensors, kept | ({"alignment": list(state["alignment"])} if "alignment" in state else {})
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            self.skipped[f"models/{key}/{_PROGRESS}"] = reason_of(error)
            return None

    def drop_progress(self, key: str) -> None:
        """Remove the checkpoint of a model that is finished."""
        self.remove(f"models/{key}/{_PROGRESS}")

    def _save_tensors(self, key: str, name: str, tensors: dict[str, Tensor], **metadata: str) -> None:
        from safetensors.torch import save

        # The job's key, since the weights of one model would fit another.
        metadata |= {"job": key, seal.KEY: seal.BLANK}
        self.write(f"models/{key}/{name}", seal.sealed(save(tensors, metadata=metadata)))

    def _load_tensors(self, key: str, name: str) -> tuple[dict[str, Tensor], dict[str, str]]:
        from safetensors.torch import load

        path = f"models/{key}/{name}"
        data = self.read_sealed(path)
        try:
            tensors, metadata = load(data), _metadata(data)
        except (SafetensorError, ValueError, TypeError, AttributeError) as error:
            raise DamagedError(f"{path}: {reason_of(error)}") from error
        if metadata.get("job", key) != key:
            raise DamagedError(f"{path}: it belongs to another job, {metadata['job'][:64]}")
        return tensors, metadata

    # Records

    def write_json(self, path: str, value: Any) -> None:
        """Write a value as JSON to `path`."""
        self.write(path, json.dumps(value, indent=1, sort_keys=True).encode())

    def read_json_files(self, folder: str) -> dict[str, Any]:
        """{name without suffix: value} of a folder's JSON files; unreadable ones are named in `skipped`."""
        values = {}
        names, strangers = self.listing(folder, ".json")
        self.skipped |= strangers
        for name in names:
            try:
                values[name.removesuffix(".json")] = records.parsed(self.read(f"{folder}/{name}"))
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                self.skipped[f"{folder}/{name}"] = reason_of(error)
        return values

    def forget_failures(self, jobs: Iterable[str]) -> None:
        """Remove the failure records of `jobs`."""
        for name in set(self.names("failures", ".parquet")) & {f"{job}.parquet" for job in jobs}:
            self.remove(f"failures/{name}")


def sealed_table(table: pa.Table, schema: pa.Schema, copy: str = "", **footer: str) -> bytearray:
    """A table as a Parquet file that carries its own digest, with a copy of its rows and more texts in its footer."""
    sink = pa.BufferOutputStream()
    # For a few rows, dictionaries, statistics and a compressor for each column take most of the time, and room.
    plain = {"compression": "snappy", "use_dictionary": False, "write_statistics": False}
    with pq.ParquetWriter(sink, schema, **(plain if len(table) <= FEW else {"compression": "zstd"})) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata({seal.KEY: seal.BLANK + copy, **footer})
    return seal.sealed(sink.getvalue())


def open_store(storage: str) -> Store:
    """The store at `storage`. Raises StoreError where there is none, with the stores below it."""
    store = Store(storage)
    if store.is_store():
        return store
    if below := store.stores_below():
        raise StoreError(f"{store.uri} is no store; stores below it: {', '.join(below)}")
    raise StoreError(f"there is no sweep in {store.uri}; make one with: signsym sweep GRID --storage {storage}")


def _metadata(data: bytes) -> dict[str, str]:
    """The metadata of a safetensors file."""
    header = records.parsed(data[8 : 8 + int.from_bytes(data[:8], "little")])
    metadata: dict[str, str] = header.get("__metadata__") or {}
    return metadata


def _folders(folder: Path) -> list[Path]:
    try:
        return [Path(entry.path) for entry in os.scandir(folder) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []

"""The store: the directory or bucket that holds results, models and failures, and alone says what is done.

A file appears whole or not at all. Nothing is a pickle. A file that is half-written or foreign is named and skipped.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import fs
from safetensors import SafetensorError

from orchestrator import tables
from orchestrator.filesystem import Files
from orchestrator.filesystem import StoreError as StoreError

if TYPE_CHECKING:
    # Imported where tensors are read or written: a sweep's driver, which does neither, stays without torch. Frames are
    # of pandas, which is imported where one is made.
    import pandas as pd
    from torch import Tensor


#: Files that are read at once from a store that is not local.
THREADS = 16


class Store:
    """A store at a local path or a URI that pyarrow knows, such as s3://bucket/sweeps."""

    def __init__(self, uri: str) -> None:
        self._files = Files(uri)
        self._fs, self._root = self._files.fs, self._files.root
        self.uri = self._files.uri
        self._local = self._files.folder is not None
        #: Files that were found and could not be read, with the reason.
        self.skipped: dict[str, str] = {}

    # Files

    @property
    def folder(self) -> Path | None:
        """The store's folder where it is a local one."""
        return self._files.folder

    def write(self, path: str, data: bytes | memoryview) -> None:
        """Put `data` at `path` below the store, whole or not at all. Raises StoreError with what to do about it."""
        self._files.write(path, data)

    def read(self, path: str) -> bytes:
        """The bytes at `path` below the store; FileNotFoundError where there is nothing."""
        with self._fs.open_input_stream(f"{self._root}/{path}") as stream:
            data: bytes = stream.read()
            return data

    def _open(self, path: str) -> pa.NativeFile:
        """A file to read pieces of. A local one is not mapped: truncated in use, it would kill the process."""
        return self._fs.open_input_file(f"{self._root}/{path}") if self._local else pa.BufferReader(self.read(path))

    def remove(self, path: str) -> None:
        """Remove the file at `path` below the store, if it is there."""
        if self._fs.get_file_info(f"{self._root}/{path}").type != fs.FileType.NotFound:
            self._fs.delete_file(f"{self._root}/{path}")

    def exists(self, paths: Sequence[str]) -> set[str]:
        """Those of `paths` below the store at which there is a file."""
        found = self._fs.get_file_info([f"{self._root}/{path}" for path in paths])
        return {path for path, info in zip(paths, found, strict=True) if info.type == fs.FileType.File}

    def names(self, folder: str, suffix: str) -> list[str]:
        """Sorted names of the files of one folder that end with `suffix`; temporary ones are not among them."""
        selector = fs.FileSelector(f"{self._root}/{folder}", allow_not_found=True)
        names = [os.path.basename(info.path) for info in self._fs.get_file_info(selector)]
        return sorted(name for name in names if name.endswith(suffix) and not name.startswith("."))

    # Tables

    def write_table(self, folder: str, key: str, rows: Sequence[dict[str, Any]], schema: pa.Schema) -> None:
        """Put rows into FOLDER/KEY.parquet."""
        sink = pa.BufferOutputStream()
        pq.write_table(pa.Table.from_pylist(list(rows), schema=schema), sink, compression="zstd")
        self.write(f"{folder}/{key}.parquet", sink.getvalue())

    def table(self, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> pa.Table:
        """All rows of a folder's files; broken and foreign files are left out and named in `skipped`."""
        parts = list(self.parts(folder, schema, columns))
        if parts:
            return pa.concat_tables(parts)
        return pa.Table.from_batches([], pa.schema([schema.field(name) for name in columns or schema.names]))

    def parts(self, folder: str, schema: pa.Schema, columns: Sequence[str] | None = None) -> Iterator[pa.Table]:
        """The rows of a folder's files, file by file; broken and foreign files are left out and named in `skipped`."""
        wanted = pa.schema([schema.field(name) for name in columns or schema.names])
        # A file that lacks any column of the table is foreign, also where that column is not asked for.
        required = set(schema.names) - tables.ADDED

        def load(name: str) -> pa.Table | None:
            try:
                with self._open(f"{folder}/{name}") as source:
                    return _read(source, wanted, required)
            except FileNotFoundError:
                # Removed between the listing and the reading.
                return None
            except Exception as error:
                # Whatever is wrong with one file must not hide the others: it is named instead.
                self.skipped[f"{folder}/{name}"] = (str(error) or type(error).__name__).splitlines()[0]
                return None

        # Parsing is work for the cores, waiting for a bucket is not.
        with ThreadPoolExecutor(os.cpu_count() if self._local else THREADS) as pool:
            yield from (part for part in pool.map(load, self.names(folder, ".parquet")) if part is not None)

    def results(self, columns: Sequence[str] | None = None) -> pd.DataFrame:
        """A row for each cell; of a cell that two sweeps computed, the row that was finished first."""
        wanted = None if columns is None else list(dict.fromkeys([*columns, "cell", "finished_at"]))
        frame: pd.DataFrame = self.table("results", tables.RESULTS, wanted).to_pandas()
        frame = frame.sort_values("finished_at", kind="stable").drop_duplicates("cell").reset_index(drop=True)
        return frame if columns is None else frame[list(columns)]

    def outcomes(self) -> pd.DataFrame:
        """A row for each cell and image, once."""
        frame: pd.DataFrame = self.table("outcomes", tables.OUTCOMES).to_pandas()
        return frame.drop_duplicates(["cell", "image"]).reset_index(drop=True)

    def done_cells(self) -> set[str]:
        """Keys of the cells that have a result."""
        found: set[str] = set()
        for part in self.parts("results", tables.RESULTS, ["cell"]):
            found.update(part["cell"].to_pylist())
        return found - {None}

    # Models

    def save_model(self, key: str, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
        """Put a finished model into the store. Its record is written last: it is what says that the model is done."""
        from safetensors.torch import save

        self.write(f"models/{key}/model.safetensors", save(tensors))
        self.write_json(f"models/{key}/record.json", record)

    def load_model(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """A finished model's tensors and record."""
        from safetensors.torch import load

        record = json.loads(self.read(f"models/{key}/record.json"))
        return load(self.read(f"models/{key}/model.safetensors")), record

    def save_codes(self, key: str, codes: dict[str, Tensor]) -> None:
        """Put the packed codes that a model gives its database and its training images beside it, before its record."""
        from safetensors.torch import save

        self.write(f"models/{key}/codes.safetensors", save(codes))

    def load_codes(self, key: str) -> dict[str, Tensor]:
        """What `save_codes` was given."""
        from safetensors.torch import load

        found: dict[str, Tensor] = load(self.read(f"models/{key}/codes.safetensors"))
        return found

    def done_models(self) -> set[str]:
        """Keys of the finished pre-training and fine-tune jobs."""
        selector = fs.FileSelector(f"{self._root}/models", allow_not_found=True, recursive=True)
        paths = [Path(info.path) for info in self._fs.get_file_info(selector)]
        return {path.parent.name for path in paths if path.name == "record.json"}

    def records(self) -> dict[str, dict[str, Any]]:
        """The records of all finished models by key."""
        return {key: json.loads(self.read(f"models/{key}/record.json")) for key in sorted(self.done_models())}

    def save_progress(self, key: str, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Put the checkpoint of an unfinished model in the place of the last one."""
        from safetensors.torch import save

        data = save(tensors, metadata={"state": json.dumps(state)})
        self.write(f"models/{key}/progress.safetensors", data)

    def load_progress(self, key: str) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """The last checkpoint of an unfinished model; None where there is none that can be read."""
        from safetensors.torch import load

        try:
            data = self.read(f"models/{key}/progress.safetensors")
            length = int.from_bytes(data[:8], "little")
            state = json.loads(json.loads(data[8 : 8 + length])["__metadata__"]["state"])
            return load(data), state
        except (FileNotFoundError, SafetensorError, ValueError, KeyError):
            return None

    def drop_progress(self, key: str) -> None:
        """Remove the checkpoint of a model that is finished."""
        self.remove(f"models/{key}/progress.safetensors")

    # Records

    def write_json(self, path: str, value: Any) -> None:
        """Put a value as JSON at `path`."""
        self.write(path, json.dumps(value, indent=1, sort_keys=True).encode())

    def read_json_files(self, folder: str) -> dict[str, Any]:
        """{name without suffix: value} of a folder's JSON files; unreadable ones are named in `skipped`."""
        values = {}
        for name in self.names(folder, ".json"):
            try:
                values[name.removesuffix(".json")] = json.loads(self.read(f"{folder}/{name}"))
            except (ValueError, OSError) as error:
                self.skipped[f"{folder}/{name}"] = str(error)
        return values

    def forget_failures(self, jobs: Iterable[str]) -> None:
        """Remove the failure records of `jobs`."""
        for name in set(self.names("failures", ".parquet")) & {f"{job}.parquet" for job in jobs}:
            self.remove(f"failures/{name}")


def _read(source: pa.NativeFile, wanted: pa.Schema, required: set[str]) -> pa.Table:
    """The columns of one Parquet file; ValueError where it lacks one that is required."""
    file = pq.ParquetFile(source, pre_buffer=False)
    there = set(file.schema_arrow.names)
    if missing := sorted(required - there):
        raise ValueError(f"it has no column {', '.join(missing)}")
    names = [name for name in wanted.names if name in there]
    # Threads over files are enough: threads within small files cost more than they save.
    found = file.read(columns=names, use_threads=False)
    if names != wanted.names:
        columns = [found[field.name] if field.name in there else pa.nulls(len(found), field.type) for field in wanted]
        found = pa.table(columns, names=wanted.names)
    return found.select(wanted.names).cast(wanted)

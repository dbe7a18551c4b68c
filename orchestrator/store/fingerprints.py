"""The fingerprint of each data set that a store's results come from: results of other images are never among them.

splits/KEY-DIGEST.parquet: KEY is that of the data set's description, DIGEST the begin of its fingerprint's. The name
alone tells whether a data set is the one of before; the file tells what else it was.
"""

from __future__ import annotations

import functools
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator.jobs import keys
from orchestrator.store import tables
from orchestrator.store.store import Store, sealed_table
from signsym_core.datasets import Data, DataSource, DataWarning
from signsym_core.datasets.fingerprint import Fingerprint, Images, Place, differences, fingerprint, nowhere
from signsym_core.datasets.marks import DIGEST

#: Makes what says where an image is: a data set is listed for it.
Places = Callable[[], Place]
#: Characters of a fingerprint's digest in the name of its file.
CHARACTERS = 32


class OtherImagesError(ValueError):
    """A data set that is not the one that earlier results in the store come from."""


def keep(store: Store, dataset: dict[str, Any], data: Data, places: Places = lambda: nowhere) -> None:
    """Record the fingerprint of `data`, the data set described as `dataset`, or hold `data` against the recorded one.

    `places` makes what says where an image is, for an error. Raises OtherImagesError where it is not the data set of
    before. A store that is older than fingerprints gets one now, with a DataWarning, if its numbers of images are the
    same.
    """
    key, now = keys.key(dataset), fingerprint(data)
    path = _path(key, now)
    names = _recorded(store, key)
    if names == [path]:
        return
    if names:
        raise _other(store, dataset, names, now, places)
    numbers = f"splits/{key}.parquet"
    older = bool(store.exists([numbers]))
    if older:
        _refuse_other_numbers(store, dataset, numbers, now)
    store.write(path, _table(now))
    # Whoever writes looks at what is there afterwards: of two that differ, one sees the other at least.
    names = [name for name in _recorded(store, key) if name != path]
    if names:
        store.remove(path)
        raise _other(store, dataset, names, now, places)
    if older:
        warnings.warn(
            f"data set {dataset['name']!r}: {store.uri} was begun before fingerprints of data were kept. From now on "
            f"its images are held against those of today ({path}); their numbers are those of the earlier results, "
            f"whether their contents are nobody can tell",
            DataWarning,
            stacklevel=2,
        )


def compare(store: Store, dataset: dict[str, Any], data: Data, places: Places = lambda: nowhere) -> None:
    """`keep` for whoever only reads the store: nothing is recorded."""
    key, now = keys.key(dataset), fingerprint(data)
    names, numbers = _recorded(store, key), f"splits/{key}.parquet"
    if names and names != [_path(key, now)]:
        raise _other(store, dataset, names, now, places)
    if not names and store.exists([numbers]):
        _refuse_other_numbers(store, dataset, numbers, now)


def compare_beside(weights: Path, source: DataSource, data: Data, root: Path) -> None:
    """`compare` with the store whose model the file `weights` is, models/KEY/model.safetensors; nothing for others."""
    folder = weights.resolve().parent
    if folder.parent.name == "models" and (folder / "record.json").is_file():
        store = Store(str(folder.parent.parent))
        compare(store, keys.described(source), data, functools.partial(source.places, root))


def load(store: Store, path: str) -> Fingerprint:
    """The fingerprint at `path`. Raises ValueError for a file that is not what `keep` put there."""
    table = pq.read_table(pa.BufferReader(store.read_sealed(path)))
    if not table.schema.equals(tables.FINGERPRINTS):
        raise ValueError(f"{path}: expected the columns {', '.join(tables.FINGERPRINTS.names)}")
    classes = json.loads((table.schema.metadata or {}).get(b"classes", b"[]"))
    splits, names = {}, table["split"].to_numpy()
    for name in dict.fromkeys(names.tolist()):
        rows = table.filter(pa.array(names == name))
        digests = np.frombuffer(b"".join(rows["digest"].to_pylist()), dtype=np.uint8).reshape(len(rows), DIGEST)
        labels = rows["labels"].combine_chunks()
        counts, flat = labels.value_lengths().to_numpy().astype(np.int64), labels.flatten().to_numpy()
        splits[name] = Images(numbers=rows["image"].to_numpy(), counts=counts, labels=flat, digests=digests)
    read = Fingerprint(classes=tuple(classes), splits=splits)
    if not path.endswith(f"-{read.digest[:CHARACTERS]}.parquet"):
        raise ValueError(f"{path}: expected the fingerprint of its name, got {read.digest[:CHARACTERS]}")
    return read


def _path(key: str, data: Fingerprint) -> str:
    return f"splits/{key}-{data.digest[:CHARACTERS]}.parquet"


def _recorded(store: Store, key: str) -> list[str]:
    return [f"splits/{name}" for name in store.names("splits", ".parquet") if name.startswith(f"{key}-")]


def _table(data: Fingerprint) -> bytearray:
    parts = list(data.splits.values())
    starts = np.concatenate([[0], np.concatenate([images.counts for images in parts]).cumsum()])
    digests = np.concatenate([images.digests for images in parts])
    columns = [
        pa.array(np.repeat(list(data.splits), [len(images) for images in parts]), pa.string()),
        pa.array(np.concatenate([images.numbers for images in parts])),
        pa.ListArray.from_arrays(pa.array(starts, pa.int32()), np.concatenate([images.labels for images in parts])),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST), len(digests), [None, pa.py_buffer(digests.tobytes())]),
    ]
    classes = {b"classes": json.dumps(data.classes).encode()}
    schema = tables.FINGERPRINTS.with_metadata({**(tables.FINGERPRINTS.metadata or {}), **classes})
    return sealed_table(pa.Table.from_arrays(columns, schema=schema), schema)


def _other(
    store: Store, dataset: dict[str, Any], names: list[str], now: Fingerprint, places: Places
) -> OtherImagesError:
    """The error that says what is different from what `names` record."""
    place, told = places(), []
    for name in names:
        try:
            told += list(differences(load(store, name), now, place))
        except Exception as error:
            # Whatever is wrong with the record: its name has said that the data are others.
            told.append(f"what it was cannot be told, its record is damaged ({error})")
    return OtherImagesError(
        f"data set {dataset['name']!r} is not the one that results in {store.uri} come from: {'. '.join(told)}. "
        f"Restore the files, or use another --storage; the record is {' and '.join(names)}"
    )


def _refuse_other_numbers(store: Store, dataset: dict[str, Any], path: str, now: Fingerprint) -> None:
    """Hold the numbers of images, all that an older store has, against those of now."""
    table = pq.read_table(pa.BufferReader(store.read_sealed(path)), schema=tables.SPLITS)
    names, images = table["split"].to_numpy(), table["image"].to_numpy()
    for part in ("train", "test", "database"):
        numbers = images[names == part]
        current = now.splits[part].numbers if part in now.splits else np.array([], dtype=np.int64)
        if not np.array_equal(numbers, current):
            raise OtherImagesError(
                f"data set {dataset['name']!r}: the store's results come from other images: its {part} split held "
                f"{len(numbers):,} images ({path}), now it holds {len(current):,}, "
                f"{len(np.setdiff1d(current, numbers)):,} of them new. Restore the files, or use another --storage"
            )

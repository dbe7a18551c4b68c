"""The fingerprint of each data set of a store's results, which refuses results of other images.

splits/KEY-DIGEST.parquet: KEY is that of the data set's description, DIGEST the first characters of its fingerprint's.
The name alone tells whether a data set has changed; the file tells how.
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
from signsym_core.datasets import DATASETS, Data, DataSource, DataWarning
from signsym_core.datasets.decode import DIGEST
from signsym_core.datasets.fingerprint import SPLITS, Fingerprint, Images, Place, differences, fingerprint, nowhere

#: Creates the function that gives the place of an image, for which a data set must be listed.
Places = Callable[[], Place]
#: Characters of a fingerprint's digest in the name of its file.
CHARACTERS = 32


class OtherImagesError(ValueError):
    """A data set that differs from the one of the store's earlier results."""


def keep(store: Store, dataset: dict[str, Any], data: Data, places: Places = lambda: nowhere) -> None:
    """Record the fingerprint of `data`, the data set described as `dataset`, or compare `data` with the recorded one.

    `places` gives the places of images for an error. Raises OtherImagesError where the data set has changed. In a store
    that is older than fingerprints one is recorded now, with a DataWarning, if the numbers of images are the same.
    """
    key, current = keys.key(dataset), _fingerprint(dataset, data)
    path = _path(key, current)
    names = _recorded(store, key)
    if names == [path]:
        return
    if names:
        raise _other(store, dataset, names, current, places)
    numbers = f"splits/{key}.parquet"
    before_fingerprints = bool(store.exists([numbers]))
    if before_fingerprints:
        _refuse_other_numbers(store, dataset, numbers, current)
    store.write(path, _table(current))
    # Listed again after writing: of two writers of different fingerprints, at least one sees the other.
    names = [name for name in _recorded(store, key) if name != path]
    if names:
        store.remove(path)
        raise _other(store, dataset, names, current, places)
    if before_fingerprints:
        warnings.warn(
            f"data set {dataset['name']!r}: {store.uri} was begun before fingerprints of data were kept. From now on "
            f"its images are held against those of today ({path}); their numbers are those of the earlier results, "
            f"whether their contents are nobody can tell",
            DataWarning,
            stacklevel=2,
        )


def compare(store: Store, dataset: dict[str, Any], data: Data, places: Places = lambda: nowhere) -> None:
    """Like `keep`, but nothing is recorded."""
    key, current = keys.key(dataset), _fingerprint(dataset, data)
    names, numbers = _recorded(store, key), f"splits/{key}.parquet"
    if names and names != [_path(key, current)]:
        raise _other(store, dataset, names, current, places)
    if not names and store.exists([numbers]):
        _refuse_other_numbers(store, dataset, numbers, current)


def compare_beside(weights: Path, source: DataSource, data: Data, root: Path) -> None:
    """`compare` with the store in which `weights` is models/KEY/model.safetensors; nothing for any other file."""
    folder = weights.resolve().parent
    if folder.parent.name == "models" and (folder / "record.json").is_file():
        store = Store(str(folder.parent.parent))
        compare(store, keys.described(source), data, functools.partial(source.places, root))


def _fingerprint(dataset: dict[str, Any], data: Data) -> Fingerprint:
    """Of a data set that differs from another in its test images alone only these count: the rest is the other's."""
    whole = not DATASETS[dataset["name"]].testing.keys() & dataset["parameters"].keys()
    return fingerprint(data, SPLITS if whole else ("test",))


def load(store: Store, path: str) -> Fingerprint:
    """The fingerprint at `path`. Raises ValueError for a file that `keep` has not written."""
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
    splits = list(data.splits.values())
    starts = np.concatenate([[0], np.concatenate([images.counts for images in splits]).cumsum()])
    digests = np.concatenate([images.digests for images in splits])
    columns = [
        pa.array(np.repeat(list(data.splits), [len(images) for images in splits]), pa.string()),
        pa.array(np.concatenate([images.numbers for images in splits])),
        pa.ListArray.from_arrays(pa.array(starts, pa.int32()), np.concatenate([images.labels for images in splits])),
        pa.FixedSizeBinaryArray.from_buffers(pa.binary(DIGEST), len(digests), [None, pa.py_buffer(digests.tobytes())]),
    ]
    classes = {b"classes": json.dumps(data.classes).encode()}
    schema = tables.FINGERPRINTS.with_metadata({**(tables.FINGERPRINTS.metadata or {}), **classes})
    return sealed_table(pa.Table.from_arrays(columns, schema=schema), schema)


def _other(
    store: Store, dataset: dict[str, Any], names: list[str], current: Fingerprint, places: Places
) -> OtherImagesError:
    """The error that lists the differences from the fingerprints `names`."""
    place, reasons = places(), []
    for name in names:
        try:
            reasons += list(differences(load(store, name), current, place))
        except Exception as error:
            # Any error of the record: its name already tells that the data have changed.
            reasons.append(f"the difference is unknown, since its record is damaged ({error})")
    return OtherImagesError(
        f"data set {dataset['name']!r} is not the one that results in {store.uri} come from: {'. '.join(reasons)}. "
        f"Restore the files, or use another --storage; the record is {' and '.join(names)}"
    )


def _refuse_other_numbers(store: Store, dataset: dict[str, Any], path: str, current: Fingerprint) -> None:
    """Compare the numbers of the images, all that an older store has, with those of `current`."""
    table = pq.read_table(pa.BufferReader(store.read_sealed(path)), schema=tables.SPLITS)
    names, images = table["split"].to_numpy(), table["image"].to_numpy()
    for split in ("train", "test", "database"):
        numbers = images[names == split]
        current_numbers = current.splits[split].numbers if split in current.splits else np.array([], dtype=np.int64)
        if not np.array_equal(numbers, current_numbers):
            raise OtherImagesError(
                f"data set {dataset['name']!r}: the store's results come from other images: its {split} split held "
                f"{len(numbers):,} images ({path}), now it holds {len(current_numbers):,}, "
                f"{len(np.setdiff1d(current_numbers, numbers)):,} of them new. Restore the files, or use another "
                f"--storage"
            )

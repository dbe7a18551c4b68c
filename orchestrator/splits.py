"""Which images a data set's splits held, kept in the store: results of other images must not be taken for the same."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from orchestrator import keys, tables
from orchestrator.store import Store
from signsym_core.datasets import Data


class OtherImagesError(ValueError):
    """A data set that is not the one that earlier results in the store come from."""


def keep(store: Store, dataset: dict[str, Any], data: Data) -> None:
    """Put the image numbers of `data`, the data set described as `dataset`, at splits/KEY.parquet.

    Raises OtherImagesError where the store has others for the same description: files came or went in between.
    """
    path = f"splits/{keys.key(dataset)}.parquet"
    splits = {"train": data.train, "test": data.test, "database": data.database}
    held = {name: split.indices.numpy() for name, split in splits.items() if split is not None}
    if not store.exists([path]):
        sink = pa.BufferOutputStream()
        names = np.repeat(list(held), [len(indices) for indices in held.values()])
        columns = [pa.array(names, pa.string()), pa.array(np.concatenate(list(held.values())))]
        pq.write_table(pa.Table.from_arrays(columns, schema=tables.SPLITS), sink, compression="zstd")
        store.write(path, sink.getvalue())
        return
    for name, indices in load(store, path).items():
        now = held.get(name, np.array([], dtype=np.int64))
        if not np.array_equal(indices, now):
            raise OtherImagesError(
                f"data set {dataset['name']!r}: the store's results come from other images: its {name} split held "
                f"{len(indices):,} images ({path}), now it holds {len(now):,}, {len(np.setdiff1d(now, indices)):,} of "
                f"them new. Restore the files, or use another --storage"
            )


def load(store: Store, path: str) -> dict[str, np.ndarray]:
    """The image numbers of each split that `keep` put at `path`, in the split's order."""
    table = pq.read_table(pa.BufferReader(store.read(path)), schema=tables.SPLITS)
    names, images = table["split"].to_numpy(), table["image"].to_numpy()
    return {name: images[names == name] for name in ("train", "test", "database")}

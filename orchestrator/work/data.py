"""Data sets on this worker's device."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import signsym_core as ss
from orchestrator.store import fingerprints
from orchestrator.store.store import Store
from orchestrator.work.device import device
from signsym_core.datasets import Data, DataSource


@functools.lru_cache(maxsize=2)
def data_set(dataset_json: str, root: str, storage: str, records: bool = True) -> tuple[DataSource, Data]:
    """A data set, decoded once per worker. Raises OtherImagesError where the store's results used other images.

    Its fingerprint is recorded in the store, where `records` and none is there yet.
    """
    description = json.loads(dataset_json)
    source = ss.DATASETS.rebuild(description)
    data = source.load(Path(root))
    check = fingerprints.keep if records else fingerprints.compare
    check(Store(storage), description, data, functools.partial(source.places, Path(root)))
    return source, data.to(device())


def tested(dataset_json: str, trained: Data, root: str, storage: str) -> tuple[DataSource, Data]:
    """The data set that differs from `trained`, which is on this worker's device, in its test images alone.

    Training images are neither read nor compared again. Raises OtherImagesError as `data_set` does.
    """
    description = json.loads(dataset_json)
    source = ss.DATASETS.rebuild(description)
    data = source.tested(trained, Path(root))
    fingerprints.keep(Store(storage), description, data, functools.partial(source.places, Path(root)))
    return source, data.to(device())


def sides(source: DataSource, data: Data) -> tuple[int, int]:
    """Height and width of a model's input."""
    return source.sides or data.sides

"""The image numbers of each split, kept in the store and held against what a later job loads."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

import signsym_core as ss
from orchestrator import keys, splits
from orchestrator.store import Store

SOURCE = ss.DATASETS.build("digits", split="20/10/rest")
DESCRIBED = keys.described(SOURCE)


@pytest.fixture
def kept(tmp_path):
    store = Store(str(tmp_path / "store"))
    data = SOURCE.load(tmp_path)
    splits.keep(store, DESCRIBED, data)
    (name,) = store.names("splits", ".parquet")
    return store, data, f"splits/{name}"


def test_every_split_is_kept_in_its_order(kept):
    store, data, path = kept
    found = splits.load(store, path)
    for name, images in found.items():
        assert images.tolist() == getattr(data, name).indices.tolist()
    # 20 and 10 of ten classes, and the rest: each of the 1,797 images once.
    assert {name: len(images) for name, images in found.items()} == {"train": 200, "test": 100, "database": 1497}
    assert np.array_equal(np.sort(np.concatenate(list(found.values()))), np.arange(1797))


def test_the_same_images_again_change_nothing(kept, monkeypatch):
    store, data, _ = kept
    monkeypatch.setattr(store, "write", None)
    splits.keep(store, DESCRIBED, data)


def test_other_images_are_refused(kept):
    store, data, path = kept
    fewer = dataclasses.replace(data, test=data.test.take(torch.arange(99)))
    with pytest.raises(splits.OtherImagesError, match=r"its test split held 100 images \(.*\), now it holds 99, 0 of"):
        splits.keep(store, DESCRIBED, fewer)
    moved = dataclasses.replace(data.test, indices=data.test.indices + 5000)
    with pytest.raises(splits.OtherImagesError, match="now it holds 100, 100 of them new"):
        splits.keep(store, DESCRIBED, dataclasses.replace(data, test=moved))
    with pytest.raises(splits.OtherImagesError, match="its database split held 1,497 images"):
        splits.keep(store, DESCRIBED, dataclasses.replace(data, database=None))
    assert store.names("splits", ".parquet") == [path.removeprefix("splits/")]

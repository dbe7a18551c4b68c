"""The promises of data sets, which `check_dataset` checks."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from signsym_core.datasets.base import DataSource
from signsym_core.datasets.splits import Data, Split


def check_data(source: DataSource, root: Path) -> None:
    """The promises of `source` on its data below `root`; AssertionError says what was expected and came."""
    name, data = source.name, source.load(root)
    splits = data.splits
    for kind, split in splits.items():
        _check_split(f"{name}, {kind}", split, len(data.classes), data)
    with torch.random.fork_rng():
        torch.manual_seed(int(torch.initial_seed() % 2**31) + 1)
        reloaded = source.load(root).splits
    for kind, split in splits.items():
        twice = f"{name}: loaded twice, {kind} has other"
        for what in ("indices", "labels"):
            same = torch.equal(getattr(split, what), getattr(reloaded[kind], what))
            assert same, f"{twice} {what}: draw from a generator with a fixed seed"
        assert torch.equal(_first_images(split), _first_images(reloaded[kind])), f"{twice} pixels"
    if source.known_training_images is not None and source.train_images is None:
        held = len(data.train) + len(data.validation or ())
        assert held == source.known_training_images, (
            f"{name}: stated says {source.known_training_images} training images, expected {held}, as loaded"
        )
    _check_choices(source, root, data)
    if source.testing.keys() & source.changed().keys():
        _check_testing(source, root, data)


def _check_split(what: str, split: Split, classes: int, data: Data) -> None:
    images, labels = _first_images(split), split.labels
    assert len(split) > 0, f"{what} has no images"
    assert images.shape[1:] == _first_images(data.train).shape[1:], (
        f"{what}: images have another shape than those of train"
    )
    assert len(split.indices.unique()) == len(split), f"{what}: the number of an image occurs twice"
    if data.multi_label:
        good = labels.dtype == torch.uint8 and labels.shape == (len(split), classes) and int(labels.max()) <= 1
        assert good, f"{what}: several labels must be uint8 0/1 [n, {classes}], got {labels.dtype} {list(labels.shape)}"
        return
    assert labels.dtype == torch.int64, f"{what}: labels must be int64 [n], got {labels.dtype}"
    assert int(labels.min()) >= 0, f"{what}: labels must lie in 0 .. {classes - 1}, got {int(labels.min())}"
    assert int(labels.max()) < classes, f"{what}: labels must lie in 0 .. {classes - 1}, got {int(labels.max())}"


def _check_choices(source: DataSource, root: Path, data: Data) -> None:
    """The parameters that every data set has do what they say."""
    few = max(len(data.train) // 2, 1)
    fewer = dataclasses.replace(source, train_images=few, validation_images=None).load(root).train
    assert len(fewer) == few, f"{source.name}: train_images {few} gives {len(fewer)} images: choose with self.choose"
    if source.train_images is None and source.validation_images is None:
        contained = set(fewer.indices.tolist()) <= set(data.train.indices.tolist())
        assert contained, f"{source.name}: a smaller choice of training images must be part of all"
    if len(data.classes) > 2 and source.classes is None:
        two = tuple(reversed(data.classes[:2]))
        chosen = dataclasses.replace(source, classes=two, validation_images=None).load(root)
        came = chosen.classes
        assert came == two, (
            f"{source.name}: classes {two} gives {came}: choose and assemble with self.choose and .assemble"
        )


def _check_testing(source: DataSource, root: Path, data: Data) -> None:
    """The parameters of `testing` change the pixels of the test images and nothing else, whatever else is chosen."""
    usual: dict[str, Any] = {
        field.name: field.default for field in dataclasses.fields(source) if field.name in source.testing
    }
    before = dataclasses.replace(source, **usual).load(root)
    changed = f"{source.name}: {', '.join(source.testing)} must change test images alone, but change"
    for (kind, split), old in zip(data.splits.items(), before.splits.values(), strict=True):
        for what in ("indices", "labels"):
            assert torch.equal(getattr(split, what), getattr(old, what)), f"{changed} the {what} of {kind}"
        same = torch.equal(_first_images(split), _first_images(old))
        assert same or kind == "test", f"{changed} the images of {kind}"
        assert not same or kind != "test", f"{source.name}: {source.changed()} leaves the test images as they are"
    few = dataclasses.replace(source, test_images=max(len(data.test) // 2, 1)).load(root).test
    rows = [data.test.indices.tolist().index(number) for number in few.indices.tolist()]
    same = torch.equal(_first_images(few), _first_images(data.test.take(torch.tensor(rows))))
    assert same, f"{source.name}: a test image has other pixels where test_images chooses fewer"


def _first_images(split: Split) -> Tensor:
    """The pixels of the first images."""
    return split.take(torch.arange(min(len(split), 256))).images  # type: ignore[return-value]

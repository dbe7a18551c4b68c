"""Generated sequences: one-hot rows, places where the papers have them, labels that a short decoder reads off."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import signsym_core as ss
from signsym_core.datasets import augmented, inputs

NAMES = ["temporal_order", "temporal_order_3bit", "permutation", "recall"]


def symbols_of(split):
    """The symbol of each step as lists, read back from one-hot rows."""
    images = split.images
    assert images.dtype is torch.uint8
    assert images.shape[1] == 1
    assert torch.equal(images.int().sum(dim=3), torch.full_like(images[..., 0], 255).int())
    assert set(images.unique().tolist()) == {0, 255}
    return images[:, 0].argmax(dim=2).tolist()


def load(name, **parameters):
    return ss.DATASETS.build(name, **parameters).load(Path())


@pytest.mark.parametrize("name", NAMES)
def test_sequences_have_their_numbers_and_shapes_and_are_drawn_once_and_for_all(name):
    source = ss.DATASETS.build(name)
    data, again = source.load(Path()), load(name, test_images=50)
    assert (len(data.train), len(data.test)) == (20_000, 10_000) == source.counts
    assert tuple(data.test.images.shape) == (10_000, 1, *source.sides)
    assert torch.equal(again.test.images, data.test.images[:50])
    assert not set(data.train.indices.tolist()) & set(data.test.indices.tolist())
    batch = data.test.images[:4]
    assert torch.equal(augmented(batch, source, torch.Generator()), inputs(batch, source))
    assert torch.equal(inputs(batch, source), batch.float() / 255)


@pytest.mark.parametrize(
    ("name", "length", "ranges"),
    [
        ("temporal_order", 10, [{1}, {5}]),
        ("temporal_order", 20, [{2, 3}, {10, 11}]),
        ("temporal_order", 25, [{3, 4}, {13, 14}]),
        ("temporal_order_3bit", 20, [{2, 3}, {6, 7}, {12, 13}]),
        ("temporal_order_3bit", 10, [{1}, {3}, {6}]),
    ],
)
def test_the_class_is_the_order_of_the_marks_and_these_stand_in_their_tenths(name, length, ranges):
    data = load(name, length=length)
    seen = [set() for _ in ranges]
    for symbols, label in zip(symbols_of(data.test), data.test.labels.tolist(), strict=True):
        assert len(symbols) == length
        places = [place for place, symbol in enumerate(symbols) if symbol < 2]
        assert data.classes[label] == "".join("AB"[symbols[place]] for place in places)
        for places_seen, place in zip(seen, places, strict=True):
            places_seen.add(place)
    assert seen == ranges


def test_the_class_of_a_permutation_is_its_first_symbol():
    data = load("permutation", length=12)
    symbols = symbols_of(data.test)
    assert [row[0] for row in symbols] == data.test.labels.tolist()
    assert {symbol for row in symbols for symbol in row[1:]} == set(range(2, 100))
    assert len(data.classes) == 100
    two = load("permutation", length=12, classes=[0, 1])
    assert two.classes == ("0", "1")
    assert set(two.test.labels.tolist()) == {0, 1}


@pytest.mark.parametrize("pairs", [1, 3, 5, 8])
def test_what_is_recalled_is_the_value_beside_the_key_that_comes_last(pairs):
    data = load("recall", pairs=pairs)
    images = data.test.images[:, 0]
    assert images.shape == (10_000, pairs + 1, 16)
    keys, values = images[..., :8], images[..., 8:]
    assert torch.equal(keys.int().sum(2), torch.full((10_000, pairs + 1), 255).int())
    assert torch.equal(values.int().sum(2), torch.tensor([255] * pairs + [0]).int().expand(10_000, -1))
    assert set(images.unique().tolist()) == {0, 255}
    shown, told = keys.argmax(2).tolist(), values.argmax(2).tolist()
    for (*row, key), row_values, label in zip(shown, told, data.test.labels.tolist(), strict=True):
        assert len(set(row)) == pairs
        assert label == dict(zip(row, row_values, strict=False))[key]


@pytest.mark.parametrize(
    ("name", "classes"), [("temporal_order", 4), ("temporal_order_3bit", 8), ("permutation", 2), ("recall", 8)]
)
def test_classes_are_equally_frequent(name, classes):
    labels = load(name).train.labels
    counts = torch.bincount(labels, minlength=classes)[:classes].double()
    expected = len(labels) / classes
    assert counts.sum() == len(labels)
    # Five standard deviations of a binomial count.
    assert (counts - expected).abs().max() < 5 * (expected * (1 - 1 / classes)) ** 0.5


def test_other_parameters_are_other_sequences_and_a_length_has_a_stream_of_its_own():
    short, long = load("temporal_order", length=10), load("temporal_order", length=20)
    assert not torch.equal(short.test.labels, long.test.labels)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("temporal_order", {"length": 9}, "'length' expects a whole number in 10"),
        ("permutation", {"length": 1}, "'length' expects a whole number in 2"),
        ("recall", {"pairs": 9}, "'keys' expects a whole number from 'pairs'"),
        ("recall", {"values": 1}, "'values' expects"),
        ("recall", {"size": 32}, "'size' expects null, since sequences are not resized"),
    ],
)
def test_sequences_that_cannot_be_are_refused(name, parameters, words):
    with pytest.raises(ValueError, match=words):
        ss.DATASETS.build(name, **parameters)


def test_a_retrieval_split_of_sequences_is_drawn_per_class():
    data = load("temporal_order", length=10, split="50/20/rest")
    assert torch.bincount(data.train.labels).tolist() == [50] * 4
    assert len(data.database) == 30_000 - 4 * 70

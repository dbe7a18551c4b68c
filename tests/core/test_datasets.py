"""Data sets: fixed splits, real layouts made small, and batches that are what torchvision would make."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10
from torchvision.transforms.v2 import functional as tv

import signsym_core as ss
from signsym_core.datasets import DataNotFoundError, augmented, inputs


def load(name, root=Path(), **parameters):
    return ss.DATASETS.build(name, **parameters).load(root)


def test_digits_are_split_once_and_for_all():
    data = load("digits")
    assert len(data.train) + len(data.test) == 1797
    assert not set(data.train.indices.tolist()) & set(data.test.indices.tolist())
    assert torch.equal(load("digits").test.indices, data.test.indices)
    assert data.train.images.dtype is torch.uint8
    assert int(data.train.images.max()) == 255


def test_classes_are_relabelled_in_the_order_given():
    data = load("digits", classes=[7, "3"])
    assert data.classes == ("7", "3")
    everything = load("digits")
    place = {
        int(index): int(label) for index, label in zip(everything.test.indices, everything.test.labels, strict=True)
    }
    old = [place[int(index)] for index in data.test.indices]
    assert [{7: 0, 3: 1}[label] for label in old] == data.test.labels.tolist()


def test_a_smaller_choice_is_part_of_a_larger_one_with_equal_shares():
    small, large = load("digits", train_images=40), load("digits", train_images=200)
    assert torch.equal(large.train.indices[:40], small.train.indices)
    assert torch.bincount(small.train.labels).tolist() == [4] * 10


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"classes": ["ten", "one"]}, "names or numbers below 10"),
        ({"classes": [3]}, "at least two"),
        ({"classes": [3, 3]}, "each class once"),
        ({"train_images": 0}, "at least 1"),
        ({"size": 2}, "at least 4"),
    ],
)
def test_bad_parameters_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        load("digits", **parameters)


def folder(root, splits=("train", "test"), size=(12, 12), count=6):
    for split in splits:
        for label, shade in (("dark", 40), ("light", 200)):
            (root / split / label).mkdir(parents=True)
            for at in range(count):
                Image.new("RGB", size, (shade, at, 0)).save(root / split / label / f"{at}.png")
    return root


@pytest.mark.parametrize("held_out", ["test", "val"])
def test_a_class_folder_tree_is_read_as_it_is(tmp_path, held_out):
    data = load("imagefolder", folder(tmp_path, ("train", held_out)))
    assert data.classes == ("dark", "light")
    assert data.train.images.shape == (12, 3, 12, 12)
    shade = data.train.images[:, 0, 0, 0]
    assert torch.equal(shade, torch.where(data.train.labels == 0, 40, 200).to(torch.uint8))


def test_a_tree_without_splits_gives_a_fixed_quarter_to_test(tmp_path):
    data = load("imagefolder", folder(tmp_path, ("",), count=10))
    assert (len(data.train), len(data.test)) == (15, 5)


def test_only_the_chosen_images_are_decoded(tmp_path):
    folder(tmp_path)
    (tmp_path / "train/dark/broken.png").write_bytes(b"not an image")
    assert len(load("imagefolder", tmp_path, train_images=2).train) == 2
    with pytest.raises(ValueError, match=r"broken\.png cannot be decoded"):
        load("imagefolder", tmp_path)


def test_images_of_other_modes_and_sizes_become_rgb_squares(tmp_path):
    folder(tmp_path, size=(20, 20))
    Image.new("L", (40, 24), 99).save(tmp_path / "train/dark/grey.JPG")
    Image.new("CMYK", (24, 40)).save(tmp_path / "train/dark/print.jpg")
    Image.new("P", (30, 30)).save(tmp_path / "train/dark/palette.png")
    Image.new("RGBA", (30, 30), (1, 2, 3, 4)).save(tmp_path / "train/dark/clear.png")
    data = load("imagefolder", tmp_path, size=16)
    assert data.train.images.shape == (16, 3, 16, 16)
    with pytest.raises(ValueError, match="set the parameter 'size'"):
        load("imagefolder", tmp_path)


def test_a_missing_folder_says_where_to_put_it(tmp_path):
    with pytest.raises(DataNotFoundError, match=f"{tmp_path / 'birds'} does not exist.*--data-root"):
        load("imagefolder", tmp_path, path="birds")


def test_cifar10_reads_the_official_files(tmp_path, monkeypatch):
    base = tmp_path / TorchvisionCIFAR10.base_folder
    base.mkdir()
    generator = np.random.default_rng(0)

    def put(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    def part(n):
        return {"data": generator.integers(0, 256, (n, 3072), dtype=np.uint8), "labels": [at % 10 for at in range(n)]}

    names = [f"class{at}" for at in range(10)]
    monkeypatch.setattr(TorchvisionCIFAR10, "train_list", [put("data_batch_1", part(30))])
    monkeypatch.setattr(TorchvisionCIFAR10, "test_list", [put("test_batch", part(20))])
    name, digest = put("batches.meta", {"label_names": names})
    monkeypatch.setattr(TorchvisionCIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    data = load("cifar10", tmp_path, classes=["class3", "class4"], test_images=3)
    assert data.train.images.shape == (6, 3, 32, 32)
    assert len(data.test) == 3
    assert data.classes == ("class3", "class4")


def test_cifar10_without_files_or_network_says_where_to_put_them(tmp_path, monkeypatch):
    from urllib.error import URLError

    def refused(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refused)
    with pytest.raises(DataNotFoundError) as error:
        load("cifar10", tmp_path)
    assert str(tmp_path / "cifar-10-python.tar.gz") in str(error.value)
    assert str(tmp_path / "cifar-10-batches-py") in str(error.value)


IMAGES = torch.randint(256, (5, 3, 20, 20), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_inputs_are_resized_as_torchvision_does():
    source = ss.DATASETS.build("imagefolder", size=32)
    expected = tv.resize(IMAGES.float() / 255, [32, 32], antialias=True).clamp(0, 1)
    assert torch.allclose(inputs(IMAGES, source), expected, atol=1e-6)
    cropped = ss.DATASETS.build("imagefolder", size=12, resize=16)
    expected = tv.center_crop(tv.resize(IMAGES.float() / 255, [16, 16], antialias=True).clamp(0, 1), [12, 12])
    assert torch.allclose(inputs(IMAGES, cropped), expected, atol=1e-6)


def test_augmented_images_are_windows_or_mirrored_windows():
    source = ss.DATASETS.build("imagefolder", size=14, resize=20)
    made = augmented(IMAGES, source, torch.Generator().manual_seed(3))
    assert torch.equal(made, augmented(IMAGES, source, torch.Generator().manual_seed(3)))
    pixels = IMAGES.float() / 255
    for image, whole in zip(made, pixels, strict=True):
        windows = [whole[:, r : r + 14, c : c + 14] for r in range(7) for c in range(7)]
        assert any(torch.equal(image, w) or torch.equal(image, w.flip(2)) for w in windows)


def test_digits_are_never_mirrored_and_sizes_are_kept():
    source = ss.DATASETS.build("digits")
    images = load("digits", test_images=20).test.images
    assert torch.equal(augmented(images, source, torch.Generator()), inputs(images, source))
    assert inputs(images, source).shape == (20, 1, 8, 8)

"""Corrupted test images: the rows of CIFAR-10-C's files, and noises against their formulas."""

from __future__ import annotations

import dataclasses
import os
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import signsym_core as ss
from signsym_core.datasets import BrokenImagesError, DataNotFoundError
from signsym_core.datasets.cifar10c import IMAGES
from signsym_core.datasets.corruptions import EXTRA, STANDARD
from signsym_core.datasets.fingerprint import fingerprint
from signsym_core.datasets.imagenet100 import WNIDS
from signsym_core.datasets.noises import NOISES, noisy
from signsym_core.testing import check_dataset

#: The numbers of a few test images, and the class of test image i.
CHOSEN = (3, 9_999, 0)


def class_of(image):
    return image * 7 % 10


@pytest.fixture
def files(tmp_path):
    """CIFAR-10-C's files as they are distributed, of which only the chosen rows are written."""
    folder = tmp_path / "CIFAR-10-C"
    folder.mkdir()
    np.save(folder / "labels.npy", np.tile(class_of(np.arange(IMAGES)), 5).astype(np.uint8))
    pixels = np.lib.format.open_memmap(folder / "fog.npy", "w+", np.uint8, (5 * IMAGES, 32, 32, 3))
    for severity in range(1, 6):
        for image in CHOSEN:
            pixels[IMAGES * (severity - 1) + image] = row(image, severity)
    return tmp_path


def row(image, severity):
    """Rows, columns and channels of different values."""
    return (np.arange(32 * 32 * 3).reshape(32, 32, 3) + 10 * severity + image) % 251


class Fake:
    """torchvision's CIFAR10, of few training images and all test images."""

    base_folder, filename, tgz_md5 = "cifar-10-batches-py", "cifar-10-python.tar.gz", ""
    classes = ss.DATASETS["cifar10"].class_names

    def __init__(self, root, train, download):
        count = 30 if train else IMAGES
        self.targets = [class_of(image) for image in range(count)]
        self.data = np.zeros((count, 32, 32, 3), dtype=np.uint8)


def test_cifar10_is_tested_on_the_rows_of_its_severity(files, monkeypatch):
    monkeypatch.setattr("torchvision.datasets.CIFAR10", Fake)
    source = ss.DATASETS.build("cifar10", corruption="fog", severity=4, classes=["truck", "airplane", "frog"])
    clean = dataclasses.replace(source, corruption=None, severity=None).load(files)
    data = source.load(files)
    assert torch.equal(data.test.indices, clean.test.indices)
    assert torch.equal(data.test.labels, clean.test.labels)
    assert int(data.train.images.max()) == 0
    # Of the chosen images 3 has class 1, 9,999 class 3 and 0 class 0, an airplane.
    assert set(data.test.indices.tolist()) & set(CHOSEN) == {0}
    position = data.test.indices.tolist().index(0)
    expected = torch.from_numpy(row(0, 4).astype(np.uint8)).permute(2, 0, 1)
    assert torch.equal(data.test.images[position], expected)
    assert int(data.test.images.any(dim=(1, 2, 3)).sum()) == 1


def of_chosen(root, **parameters):
    """The chosen test images under a corruption."""
    source = ss.DATASETS.build("cifar10", **{"corruption": "fog", "severity": 2, **parameters})
    numbers = torch.tensor(CHOSEN)
    clean = ss.datasets.Split(
        images=torch.zeros(3, 3, 32, 32, dtype=torch.uint8), labels=class_of(numbers), indices=numbers
    )
    return source.tested(ss.datasets.Data(train=clean, test=clean, classes=source.class_names), root).test.images


def test_images_come_in_the_order_of_the_clean_ones(files):
    came = of_chosen(files, severity=5)
    for position, image in enumerate(CHOSEN):
        assert np.array_equal(came[position].permute(1, 2, 0).numpy(), row(image, 5)), image


def other_label(folder):
    labels = np.load(folder / "labels.npy")
    labels[IMAGES + 9_999] = 4
    np.save(folder / "labels.npy", labels)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: np.save(f / "fog.npy", np.zeros((9, 32, 32, 3), np.uint8)), r"fog.npy: .*\[50000, 32, .*got .*\[9,"),
        (lambda f: np.save(f / "labels.npy", np.zeros(50_000)), r"labels.npy: expected integers .*, got float64"),
        (lambda f: (f / "fog.npy").write_bytes(pickle.dumps("fog")), r"fog.npy: expected uint8 .* cannot read"),
        (lambda f: (f / "fog.npy").write_bytes((f / "fog.npy").read_bytes()[:5_000]), r"fog.npy: .* cannot read"),
        (other_label, r"labels.npy: expected .* so 3 in row 19999, image 9999, got 4 \(1 of 3 differ\).*zenodo"),
    ],
)
def test_files_that_do_not_fit_are_named(files, change, words):
    change(files / "CIFAR-10-C")
    with pytest.raises(ValueError, match=words):
        of_chosen(files)


def test_a_missing_kind_says_where_it_belongs(files):
    with pytest.raises(DataNotFoundError, match=r"CIFAR-10-C/frost.npy is not there. Download record 2535967 .*zenodo"):
        of_chosen(files, corruption="frost")


@pytest.fixture
def imagenet(tmp_path):
    """Folders of ImageNet, of pictures that are not square, and the validation images of one set of ImageNet-C."""
    random = np.random.default_rng(0)
    for folder, names, shape in (
        ("imagenet/train", "abcdefgh", (12, 14, 3)),
        ("imagenet/val", "xyz", (12, 14, 3)),
        ("ImageNet-C/fog/3", "xyz", (8, 8, 3)),
    ):
        for wnid in WNIDS[:3]:
            (tmp_path / folder / wnid).mkdir(parents=True)
            for name in names:
                pixels = random.integers(0, 256, shape, dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / folder / wnid / f"{wnid}{name}.JPEG", "PNG")
    return tmp_path


FOG = {"size": 8, "resize": 10, "corruption": "fog", "severity": 3}


def check_test_images(source, root):
    """The test images are the files of their numbers, and of their classes; returns how many there are."""
    test, place = source.load(root).test, source.places(root)
    inputs = ss.datasets.inputs(test.images, source)
    classes = source.classes or WNIDS
    for number, label, came in zip(test.indices.tolist(), test.labels.tolist(), inputs, strict=True):
        file = Path(place("test", number))
        assert file.parent == root / "ImageNet-C/fog/3" / classes[label]
        assert np.array_equal((255 * came).round().byte().permute(1, 2, 0).numpy(), np.asarray(Image.open(file)))
    return len(test)


def test_imagenet_is_tested_on_the_images_of_imagenet_c_as_they_are(imagenet):
    source = ss.DATASETS.build("imagenet", **FOG, classes=[WNIDS[2], WNIDS[0]])
    assert check_test_images(source, imagenet) == 6
    data, place = source.load(imagenet), source.places(imagenet)
    clean = ss.DATASETS.build("imagenet", size=8, resize=10, classes=source.classes)
    for number in data.test.indices.tolist():
        assert Path(place("test", number)).name == Path(clean.places(imagenet)("test", number)).name
    assert place("train", 0) == str(imagenet / f"imagenet/train/{WNIDS[0]}/{WNIDS[0]}a.JPEG")
    assert torch.equal(data.train.images, clean.load(imagenet).train.images)
    assert fingerprint(data).digest != fingerprint(clean.load(imagenet)).digest
    check_dataset(dataclasses.replace(source, resize=None), imagenet)


def test_the_queries_of_imagenet100_are_those_of_imagenet_c_too(imagenet):
    for name, folder, images in (("train", "train", "abcdefgh"), ("test", "val", "xz")):
        rows = [
            f"{folder}/{wnid}/{wnid}{image}.JPEG {' '.join(str(int(other == wnid)) for other in WNIDS)}"
            for wnid in WNIDS[:3]
            for image in images
        ]
        (imagenet / f"imagenet/{name}.txt").write_text("\n".join(rows))
    assert check_test_images(ss.DATASETS.build("imagenet100", **FOG, lists="."), imagenet) == 6


def test_the_folders_of_clean_images_are_listed_once_for_all_sets(imagenet, monkeypatch):
    (imagenet / "ImageNet-C/fog/4").symlink_to(imagenet / "ImageNet-C/fog/3")
    source = ss.DATASETS.build("imagenet", **FOG)
    clean = dataclasses.replace(source, corruption=None, severity=None).load(imagenet)
    listed, scandir = [], os.scandir
    monkeypatch.setattr(os, "scandir", lambda folder: (listed.append(str(folder)), scandir(folder))[1])
    for severity in (3, 4):
        corrupted = dataclasses.replace(source, severity=severity)
        data = corrupted.tested(clean, imagenet)
        assert data.test.files == ["/".join(file.split("/")[-2:]) for file in clean.test.files]
    assert not [folder for folder in listed if str(imagenet / "imagenet") in folder]
    source.load(imagenet)
    assert listed.count(str(imagenet / "imagenet/train")) == 1


def test_corrupted_images_need_the_paths_of_the_clean_ones(imagenet):
    source = ss.DATASETS.build("imagenet", **FOG)
    clean = dataclasses.replace(source, corruption=None, severity=None).load(imagenet)
    nowhere = dataclasses.replace(clean, test=dataclasses.replace(clean.test, files=None))
    with pytest.raises(ValueError, match="ImageNet-C: expected test images that come with the paths of their files"):
        source.tested(nowhere, imagenet)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (shutil.rmtree, "ImageNet-C: .*/fog/3 does not exist. Download record 2235448 of Zenodo"),
        (lambda folder: next(folder.glob("*/*z.JPEG")).unlink(), "/fog/3/.*z.JPEG: .* regular file, got nothing"),
        (lambda folder: next(folder.glob("*/*z.JPEG")).write_bytes(b"no"), "1 broken images: .*/fog/3/.*z.JPEG"),
    ],
)
def test_images_that_imagenet_c_lacks_are_named(imagenet, change, words):
    change(imagenet / "ImageNet-C/fog/3")
    with pytest.raises((DataNotFoundError, BrokenImagesError), match=words):
        ss.DATASETS.build("imagenet", **FOG, broken="skip").load(imagenet)


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"corruption": "rain", "severity": 1}, "'corruption' expects null, or one of gaussian_noise, .* got 'rain'"),
        ({"corruption": "fog"}, "'severity' expects 1 to 5 with a corruption, got null"),
        ({"severity": 1}, "'severity' expects null without the parameter 'corruption', got 1"),
        ({"corruption": "fog", "severity": 6}, "'severity' expects null, or a whole number from 1 to 5, got 6"),
        ({"corruption": "fog", "severity": 1, "split": "500/100/rest"}, "'corruption' expects null with split 500/100"),
    ],
)
def test_parameters_that_do_not_fit_are_refused(parameters, words):
    with pytest.raises(ValueError, match=words):
        ss.DATASETS.build("cifar10", **parameters)


def test_the_kinds_are_those_of_the_benchmark():
    assert (len(set(STANDARD)), len(set(STANDARD + EXTRA))) == (15, 19)
    assert ss.DATASETS["cifar10"].testing["corruption"] == STANDARD
    assert set(NOISES) <= set(STANDARD)


def test_brightness_and_contrast_are_their_formulas():
    x = np.array([[[0, 51, 102, 255]]], dtype=np.float64) / 255
    bright, flat = (
        noisy((255 * torch.tensor(x)).byte()[None], torch.tensor([0]), k, 2) for k in ("brightness", "contrast")
    )
    assert bright.flatten().tolist() == [51, 102, 153, 255]
    assert flat.flatten().tolist() == np.floor(255 * (x.mean() + 0.3 * (x - x.mean()))).flatten().tolist()


def test_noises_have_the_spread_of_their_formulas():
    grey = torch.full((200, 1, 16, 16), 102, dtype=torch.uint8)
    x, n = {}, grey.numel()
    for kind in ("gaussian_noise", "shot_noise", "impulse_noise"):
        x[kind] = noisy(grey, torch.arange(200), kind, 1).double().numpy().ravel() / 255
    # Rounding down takes half a step of 1/255 on average; 5 standard errors.
    assert x["gaussian_noise"].mean() == pytest.approx(0.4 - 0.5 / 255, abs=5 * 0.08 / n**0.5)
    assert x["gaussian_noise"].std() == pytest.approx(0.08, rel=0.02)
    # A Poisson count has the variance of its mean: of k / c it is x / c.
    assert x["shot_noise"].std() == pytest.approx((0.4 / 60) ** 0.5, rel=0.02)
    photons = np.ceil(x["shot_noise"] * 255) / 255 * 60
    assert np.abs(photons - photons.round()).max() < 60 / 255
    for value in (0.0, 1.0):
        share = (x["impulse_noise"] == value).mean()
        assert share == pytest.approx(0.015, abs=5 * (0.015 / n) ** 0.5)


def test_each_image_has_noise_of_its_own_that_does_not_depend_on_the_others():
    source = ss.DATASETS.build("digits", corruption="gaussian_noise", severity=3)
    data, few = source.load(Path()), dataclasses.replace(source, test_images=7).load(Path())
    images = torch.full((2, 1, 8, 8), 100, dtype=torch.uint8)
    first, second = noisy(images, torch.tensor([4, 5]), "gaussian_noise", 3)
    assert not torch.equal(first, second)
    places = [data.test.indices.tolist().index(number) for number in few.test.indices.tolist()]
    assert torch.equal(data.test.images[places], few.test.images)

"""Data sets: fixed splits, real layouts made small, and batches that are what torchvision would make."""

from __future__ import annotations

import hashlib
import pickle
import random
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.datasets import CIFAR10 as TorchvisionCIFAR10
from torchvision.transforms.v2 import functional as tv

import signsym_core as ss
from signsym_core.datasets import DataNotFoundError, augmented, inputs
from signsym_core.datasets.sequences import Sequences


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

    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    monkeypatch.setattr(TorchvisionCIFAR10, "train_list", [put("data_batch_1", part(30))])
    monkeypatch.setattr(TorchvisionCIFAR10, "test_list", [put("test_batch", part(20))])
    name, digest = put("batches.meta", {"label_names": names})
    monkeypatch.setattr(TorchvisionCIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    data = load("cifar10", tmp_path, classes=["cat", "deer"], test_images=3)
    assert data.train.images.shape == (6, 3, 32, 32)
    assert len(data.test) == 3
    assert data.classes == ("cat", "deer")


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


def test_smaller_test_sets_are_part_of_larger_ones_with_equal_shares():
    small, large = load("digits", test_images=30), load("digits", test_images=100)
    assert torch.equal(large.test.indices[:30], small.test.indices)
    assert torch.bincount(small.test.labels).tolist() == [3] * 10
    assert torch.bincount(load("digits", test_images=25).test.labels).tolist() == [3] * 5 + [2] * 5


def test_chosen_classes_share_what_is_asked_for():
    data = load("digits", classes=[9, 2, 5], train_images=31, test_images=6)
    assert torch.bincount(data.train.labels).tolist() == [11, 10, 10]
    assert torch.bincount(data.test.labels).tolist() == [2, 2, 2]


def test_asking_for_more_images_than_there_are_gives_all():
    data = load("digits", train_images=10_000, test_images=10_000)
    assert (len(data.train), len(data.test)) == (1797 - 449, 449)


def test_training_and_test_images_stay_apart_for_every_choice():
    data = load("digits", classes=[1, 2], train_images=50, test_images=50)
    assert not set(data.train.indices.tolist()) & set(data.test.indices.tolist())


@pytest.mark.slow
def test_indices_say_which_image_it_is():
    from sklearn.datasets import load_digits

    digits, data = load_digits(), load("digits", classes=[4, 7], test_images=20)
    for image, label, index in zip(data.test.images, data.test.labels, data.test.indices, strict=True):
        expected = torch.from_numpy(digits.images[int(index)] * 255 / 16)
        assert (image[0] - expected).abs().max() <= 0.5
        assert [4, 7][int(label)] == digits.target[int(index)]


def test_one_class_under_two_spellings_is_refused():
    with pytest.raises(ValueError, match="each class once"):
        load("digits", classes=[3, "3", 4])


def test_a_choice_does_not_depend_on_the_global_generator():
    torch.manual_seed(1)
    one = load("digits", train_images=30)
    torch.manual_seed(2)
    assert torch.equal(load("digits", train_images=30).train.indices, one.train.indices)


def test_a_split_is_taken_apart_by_position():
    split = load("digits", test_images=30).test
    part = split.take(torch.tensor([5, 0, 7]))
    assert torch.equal(part.images, split.images[[5, 0, 7]])
    assert torch.equal(part.labels, split.labels[[5, 0, 7]])
    assert torch.equal(part.indices, split.indices[[5, 0, 7]])


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".jpg", ".JPEG", ".bmp", ".TIF", ".webp", ".ppm"])
def test_images_are_known_by_their_suffix_in_either_case(tmp_path, suffix):
    folder(tmp_path, count=1)
    Image.new("RGB", (12, 12), (40, 0, 0)).save(tmp_path / f"train/dark/more{suffix}")
    (tmp_path / "train/dark/notes.txt").write_text("no image")
    assert len(load("imagefolder", tmp_path).train) == 3


def test_images_in_folders_below_a_class_count_too(tmp_path):
    folder(tmp_path, count=1)
    (tmp_path / "train/dark/deep/deeper").mkdir(parents=True)
    Image.new("RGB", (12, 12)).save(tmp_path / "train/dark/deep/deeper/x.png")
    assert len(load("imagefolder", tmp_path).train) == 3


def test_an_absolute_path_needs_no_data_root(tmp_path):
    folder(tmp_path / "tree")
    data = load("imagefolder", tmp_path / "elsewhere", path=str(tmp_path / "tree"))
    assert len(data.train) == 12


def test_the_quarter_for_testing_is_fixed_and_apart(tmp_path):
    tree = folder(tmp_path, ("",), count=10)
    one, other = load("imagefolder", tree), load("imagefolder", tree)
    assert torch.equal(one.train.images, other.train.images)
    # Each image has its own number in the second channel, and its shade in the first.
    marks = [[tuple(image[:2, 0, 0].tolist()) for image in split.images] for split in (one.train, one.test)]
    assert len(set(marks[0]) | set(marks[1])) == 20
    assert not set(marks[0]) & set(marks[1])


def test_palette_images_are_read_in_the_colours_of_their_palette(tmp_path):
    folder(tmp_path, count=1)
    Image.new("RGB", (12, 12), (10, 200, 30)).quantize(4).save(tmp_path / "test/light/p.png")
    assert [10, 200, 30] in load("imagefolder", tmp_path).test.images[:, :, 0, 0].tolist()


@pytest.mark.parametrize("places", [["train/dark", "test/dark"], ["dark"], ["train/a", "train/b", "test/a", "test/b"]])
def test_a_tree_without_classes_or_images_is_refused_with_its_place(tmp_path, places):
    for place in places:
        (tmp_path / place).mkdir(parents=True)
    with pytest.raises(DataNotFoundError, match=f"image folder {tmp_path}"):
        load("imagefolder", tmp_path)


@pytest.mark.parametrize("parameters", [{"resize": 20}, {"resize": 20, "size": 24}])
def test_a_crop_larger_than_the_image_is_refused(parameters):
    with pytest.raises(ValueError, match="'resize' expects null, or at least the parameter 'size'"):
        ss.DATASETS.build("imagefolder", **parameters)


@pytest.fixture
def cifar(tmp_path, monkeypatch):
    """CIFAR-10's files in their own format with fewer images, and what is in them: {split: (rows, labels)}."""
    base = tmp_path / TorchvisionCIFAR10.base_folder
    base.mkdir()
    generator, contents = np.random.default_rng(0), {}

    def put(name, content):
        (base / name).write_bytes(pickle.dumps(content))
        return [name, hashlib.md5((base / name).read_bytes()).hexdigest()]

    def part(split, n):
        rows = generator.integers(0, 256, (n, 3072), dtype=np.uint8)
        labels = [at * 3 % 10 for at in range(n)]
        before = contents.get(split, (np.zeros((0, 3072), np.uint8), []))
        contents[split] = (np.concatenate([before[0], rows]), before[1] + labels)
        return {"data": rows, "labels": labels}

    train = [put(f"data_batch_{at}", part("train", 20)) for at in (1, 2)]
    monkeypatch.setattr(TorchvisionCIFAR10, "train_list", train)
    monkeypatch.setattr(TorchvisionCIFAR10, "test_list", [put("test_batch", part("test", 20))])
    name, digest = put("batches.meta", {"label_names": [f"class{at}" for at in range(10)]})
    monkeypatch.setattr(TorchvisionCIFAR10, "meta", {"filename": name, "key": "label_names", "md5": digest})
    return contents


def test_cifar10_is_divided_as_the_authors_do_over_both_parts_and_cropped_as_they_do(tmp_path, cifar, monkeypatch):
    counts = {"train": 2, "test": 1, "validation": 1}
    monkeypatch.setattr("signsym_core.datasets.authors_2024.OF_A_CLASS", counts)
    labels = [*cifar["train"][1], *cifar["test"][1]]
    order = list(range(60))
    random.Random(0).shuffle(order)
    source = ss.DATASETS.build("cifar10", split="authors-2024", size=24, resize=28)
    data = source.load(tmp_path)
    assert [len(s) for s in (data.train, data.test, data.validation, data.database)] == [20, 10, 10, 20]
    for number in range(10):
        of_class = [at for at in order if labels[at] == number]
        wanted = {"train": of_class[:2], "test": of_class[2:3], "validation": of_class[3:4], "database": of_class[4:]}
        for name, positions in wanted.items():
            split = getattr(data, name)
            assert set(split.indices[split.labels == number].tolist()) == set(positions)
    pixels = inputs(data.test.images, source)
    resized = tv.resize(data.test.images, [28, 28], antialias=True)
    assert torch.allclose(pixels, tv.center_crop(resized, [24, 24]) / 255, atol=1.01 / 255)
    with pytest.raises(ValueError, match="'resize' expects null, or at least the parameter 'size', got 28"):
        ss.DATASETS.build("cifar10", resize=28)


@pytest.mark.parametrize("split", ["train", "test"])
def test_cifar10_keeps_every_pixel_at_its_place(tmp_path, cifar, split):
    got, (rows, labels) = getattr(load("cifar10", tmp_path), split), cifar[split]
    assert len(got) == len(rows)
    for image, label, index in zip(got.images, got.labels, got.indices, strict=True):
        # The file holds 1,024 red values, then green, then blue, row by row.
        assert torch.equal(image.flatten(), torch.from_numpy(rows[int(index)]))
        assert int(label) == labels[int(index)]


def test_cifar10_with_a_damaged_file_says_where_to_put_another(tmp_path, cifar, monkeypatch):
    from urllib.error import URLError

    def refused(*_, **__):
        raise URLError("no network")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refused)
    (tmp_path / "cifar-10-batches-py/data_batch_2").write_bytes(b"damaged")
    with pytest.raises(DataNotFoundError, match=r"cifar-10-python\.tar\.gz.*--data-root"):
        load("cifar10", tmp_path)


@pytest.mark.parametrize("side", [7, 16, 19, 20, 33])
def test_inputs_of_any_size_are_torchvisions(side):
    source = ss.DATASETS.build("imagefolder", size=side)
    made = inputs(IMAGES, source)
    expected = tv.resize(IMAGES.float() / 255, [side, side], antialias=True).clamp(0, 1)
    assert torch.allclose(made, expected, atol=1e-6)
    assert made.dtype is torch.float32


@pytest.mark.parametrize(("resize", "size"), [(16, 12), (17, 12), (15, 14), (16, 16), (15, 12), (19, 12)])
def test_the_middle_is_cut_out_where_torchvision_cuts_it(resize, size):
    source = ss.DATASETS.build("imagefolder", size=size, resize=resize)
    scaled = tv.resize(IMAGES.float() / 255, [resize, resize], antialias=True).clamp(0, 1)
    assert torch.allclose(inputs(IMAGES, source), tv.center_crop(scaled, [size, size]), atol=1e-6)


def test_inputs_do_not_change_the_images():
    before = IMAGES.clone()
    source = ss.DATASETS.build("imagefolder", size=20)
    inputs(IMAGES, source)
    augmented(IMAGES, source, torch.Generator())
    assert torch.equal(before, IMAGES)


# Sequences are not resized: see test_sequences.py.
@pytest.mark.parametrize("name", [cls.name for cls in ss.DATASETS if not issubclass(cls, Sequences)])
def test_augmented_images_are_inputs_in_type_range_and_shape(name):
    source = ss.DATASETS.build(name, size=16)
    made = augmented(IMAGES, source, torch.Generator().manual_seed(0))
    assert (made.dtype, made.device, made.shape) == (torch.float32, IMAGES.device, (5, 3, 16, 16))
    assert made.is_contiguous()
    assert 0 <= made.min() <= made.max() <= 1


def test_crops_come_from_everywhere_and_half_of_them_are_mirrored():
    source = ss.DATASETS.build("imagefolder", size=14, resize=16)
    # Each pixel of the image is its own number.
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(2000, 3, 16, 16)
    made = augmented(image, source, torch.Generator().manual_seed(0)).mul(255).round().int()
    mirrored = made[:, 0, 0, 0] > made[:, 0, 0, 1]
    assert 0.45 < mirrored.double().mean() < 0.55
    corners = torch.where(mirrored, made[:, 0, 0, -1], made[:, 0, 0, 0])
    counts = torch.bincount(corners, minlength=256)
    assert counts.nonzero().flatten().tolist() == [row * 16 + column for row in range(3) for column in range(3)]
    assert counts[counts > 0].min() > 150


def test_augmentation_follows_its_generator_and_no_other():
    source = ss.DATASETS.build("imagefolder", size=14, resize=20)
    before = torch.get_rng_state()
    generator = torch.Generator().manual_seed(0)
    one, other = augmented(IMAGES, source, generator), augmented(IMAGES, source, generator)
    assert not torch.equal(one, other)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_data_set_may_forbid_mirroring():
    source = ss.DATASETS.build("imagefolder", size=20, flip=False)
    assert torch.equal(augmented(IMAGES, source, torch.Generator()), inputs(IMAGES, source))


def test_an_image_is_what_it_is_whatever_else_lies_in_the_folder(tmp_path):
    source = ss.DATASETS.build("imagefolder", size=24)
    for place in ("train/a", "train/b", "test/a", "test/b"):
        (tmp_path / place).mkdir(parents=True)
        noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
        Image.fromarray(noise).save(tmp_path / place / "wide.png")
    alone = inputs(source.load(tmp_path).train.images, source)[0]
    Image.new("RGB", (30, 30)).save(tmp_path / "train/a/zz-square.png")
    data = source.load(tmp_path)
    beside = inputs(data.train.images, source)[data.train.indices.tolist().index(0)]
    assert torch.equal(alone, beside)

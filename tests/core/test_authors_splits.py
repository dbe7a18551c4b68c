"""The splits of the authors' code, against its recipe written out, with Python's shuffle written out too."""

from __future__ import annotations

import hashlib
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

import signsym_core as ss
from signsym_core.datasets import DataNotFoundError, authors_2024, coco, nuswide
from signsym_core.datasets.imagenet100 import WNIDS

SPLITS = ("train", "test", "validation", "database")


def shuffle(items):
    """Fisher and Yates from the end, each place drawn by rejection from the fewest bits: Python's since 3.2."""
    drawn, row = random.Random(0), list(items)
    for last in range(len(row) - 1, 0, -1):
        place = last + 1
        while place > last:
            place = drawn.getrandbits((last + 1).bit_length())
        row[last], row[place] = row[place], row[last]
    return row


def numbers(data):
    return {name: sorted(getattr(data, name).indices.tolist()) for name in SPLITS}


def picture(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.zeros((5, 6, 3), dtype=np.uint8)).save(file)


def test_the_order_is_pythons_and_stays_so():
    order = authors_2024.shuffled(60_000)
    assert order == shuffle(range(60_000))
    assert order[:5] == ORDER_BEGINS
    assert hashlib.sha256(json.dumps(order).encode()).hexdigest()[:16] == ORDER_DIGEST


#: Of CIFAR-10's 60,000 images.
ORDER_BEGINS = [24413, 42772, 6584, 51319, 6641]
ORDER_DIGEST = "52e85523641fadef"


def test_cifar10_is_divided_class_by_class():
    labels = [(at * at + at // 7) % 10 for at in range(60_000)]
    folds, order = ["database"] * len(labels), shuffle(range(60_000))
    for number in range(10):
        of_class = [at for at in order if labels[at] == number]
        for first, last, name in ((0, 500, "train"), (500, 600, "test"), (600, 700, "validation")):
            for at in of_class[first:last]:
                folds[at] = name
    splits = authors_2024.per_class(torch.tensor(labels), authors_2024.OF_A_CLASS)
    assert [name for name in SPLITS] == list(splits)
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        name: [at for at, fold in enumerate(folds) if fold == name] for name in SPLITS
    }
    assert [len(splits[name]) for name in SPLITS] == [5_000, 1_000, 1_000, 53_000]
    with pytest.raises(ValueError, match="500 train, 100 test, 100 validation images, got 30 images of class 0"):
        authors_2024.per_class(torch.zeros(30, dtype=torch.int64), authors_2024.OF_A_CLASS)


@pytest.mark.parametrize(("images", "counts"), [(123_287, coco.AUTHORS_COUNTS), (148_332, nuswide.AUTHORS_COUNTS)])
def test_coco_and_nuswide_are_divided_by_a_shuffled_row_of_names(images, counts):
    row = [name for name, count in counts.items() for _ in range(count)]
    row = shuffle(row + ["database"] * (images - len(row)))
    splits = authors_2024.folds(images, counts)
    assert {name: rows.tolist() for name, rows in splits.items()} == {
        name: [at for at, fold in enumerate(row) if fold == name] for name in SPLITS
    }
    with pytest.raises(ValueError, match="for train, test, validation and a database, got 14,700"):
        authors_2024.folds(14_700, nuswide.AUTHORS_COUNTS)


def test_coco_is_taken_in_the_order_of_its_files_with_a_class_for_each_number(tmp_path, monkeypatch):
    monkeypatch.setattr(coco, "AUTHORS_COUNTS", {"train": 7, "test": 4, "validation": 3})
    categories = {90: "toothbrush", 1: "person", 13: "stop sign"}
    parts = {"train2014": [31, 5, 17, 8, 29, 2, 40, 11, 3, 26, 9, 38], "val2014": [36, 1, 20, 14, 33, 6, 22, 39]}
    shows = {n: [] if n % 5 == 0 else [(1, 13, 90)[n % 3], 90] for part in parts.values() for n in part}
    for part, listed in parts.items():
        names = {n: f"COCO_{part}_{n:012d}.jpg" for n in listed}
        for name in names.values():
            picture(tmp_path / f"coco/{part}/{name}")
        content = {"images": [{"id": n, "file_name": name} for n, name in names.items()]}
        content["annotations"] = [{"image_id": n, "category_id": c} for n in listed for c in shows[n]]
        content["categories"] = [{"id": n, "name": name} for n, name in categories.items()]
        (tmp_path / "coco/annotations").mkdir(exist_ok=True)
        (tmp_path / f"coco/annotations/instances_{part}.json").write_text(json.dumps(content))
    data = ss.DATASETS.build("coco", size=4, split="authors-2024").load(tmp_path)
    in_order = parts["train2014"] + parts["val2014"]
    row = shuffle(["train"] * 7 + ["test"] * 4 + ["validation"] * 3 + ["database"] * 6)
    ranks = {n: rank for rank, n in enumerate(sorted(in_order))}
    assert numbers(data) == {
        name: sorted(ranks[n] for n, fold in zip(in_order, row, strict=True) if fold == name) for name in SPLITS
    }
    assert len(data.classes) == 90
    assert {n + 1: name for n, name in enumerate(data.classes) if name in categories.values()} == categories
    by_rank = {rank: n for n, rank in ranks.items()}
    for name in SPLITS:
        split = getattr(data, name)
        for rank, labels in zip(split.indices.tolist(), split.labels, strict=True):
            assert set((labels.nonzero().flatten() + 1).tolist()) == set(shows[by_rank[rank]])


def flickr(root):
    """NUS-WIDE's own files for 60 photographs of three concepts, every seventh gone; the listed names, in order."""
    tree, listed = root / "nuswide", [f"{at * 37 % 61:04d}_{at}.jpg" for at in range(60)]
    (tree / "ImageList").mkdir(parents=True)
    (tree / "ImageList/Imagelist.txt").write_text("".join(f"actor\\{name}\n" for name in listed))
    (tree / "AllLabels").mkdir()
    ones = {"water": [at % 2 for at in range(60)], "sky": [int(at % 4 != 3) for at in range(60)]}
    ones["rare"] = [int(at < 9) for at in range(60)]
    for concept, column in ones.items():
        (tree / f"AllLabels/Labels_{concept}.txt").write_text("".join(f"{one}\n" for one in column))
    for at, name in enumerate(listed):
        if at % 7:
            picture(tree / "images" / name)
    return listed, ones


def test_nuswide_is_divided_over_the_photographs_that_are_there_and_have_a_frequent_concept(tmp_path, monkeypatch):
    monkeypatch.setattr(nuswide, "AUTHORS_COUNTS", {"train": 12, "test": 5, "validation": 4})
    monkeypatch.setattr(nuswide, "AUTHORS_LEAST", 30)
    listed, ones = flickr(tmp_path)
    source = ss.DATASETS.build("nuswide", size=4, split="authors-2024")
    data = source.load(tmp_path)
    kept = [at for at in range(60) if at % 7 and (ones["water"][at] or ones["sky"][at])]
    row = shuffle(["train"] * 12 + ["test"] * 5 + ["validation"] * 4 + ["database"] * (len(kept) - 21))
    place = source.places(tmp_path)
    for name in SPLITS:
        files = sorted(listed[at] for at, fold in zip(kept, row, strict=True) if fold == name)
        assert sorted(place(name, n).rsplit("/", 1)[1] for n in numbers(data)[name]) == files
    assert data.classes == ("sky", "water")
    for number, labels in zip(data.train.indices.tolist(), data.train.labels.tolist(), strict=True):
        assert labels == [ones["sky"][kept[number]], ones["water"][kept[number]]]


def test_nuswides_own_files_are_checked(tmp_path, monkeypatch):
    source = ss.DATASETS.build("nuswide", size=4, split="authors-2024")
    with pytest.raises(DataNotFoundError, match=r"AllLabels/Labels_\*\.txt of split authors-2024 does not exist"):
        source.listing(tmp_path)
    flickr(tmp_path)
    with pytest.raises(ValueError, match=r"at least two files in .* with 5,000 ones, got 0"):
        source.listing(tmp_path)
    monkeypatch.setattr(nuswide, "AUTHORS_LEAST", 30)
    with pytest.raises(ValueError, match=r"expected more than 14,700 images for train, .* got "):
        source.listing(tmp_path)
    file = tmp_path / "nuswide/AllLabels/Labels_sky.txt"
    file.write_text("1\n0\n2\n")
    with pytest.raises(ValueError, match=r"Labels_sky\.txt:3: expected 0 or 1, got '2'"):
        source.listing(tmp_path)
    file.write_text("1\n0\n")
    with pytest.raises(ValueError, match="a 0 or 1 for each of 60 listed images, got 2"):
        source.listing(tmp_path)


def test_every_second_line_of_imagenet100s_test_list_validates(tmp_path):
    def write(name, folder, count, first):
        lines = []
        for at in range(count):
            number = (at * 3 + first) % 100
            file = f"{WNIDS[number]}_{at}.JPEG" if folder == "train" else f"ILSVRC2012_val_{at:08d}.JPEG"
            picture(tmp_path / f"imagenet/{folder}/{WNIDS[number]}/{file}")
            lines.append(f"/home/somebody/{file} {' '.join(str(int(c == number)) for c in range(100))}\n")
        (tmp_path / "imagenet/lists").mkdir(exist_ok=True)
        (tmp_path / f"imagenet/lists/{name}.txt").write_text("".join(lines))

    for name, folder, count, first in (("train", "train", 6, 0), ("test", "val", 9, 1)):
        write(name, folder, count, first)
    source = ss.DATASETS.build("imagenet100", size=4, lists="lists", split="authors-2024")
    with pytest.raises(DataNotFoundError, match=r"lists/database\.txt of split authors-2024 does not exist"):
        source.load(tmp_path)
    write("database", "train", 8, 0)
    data = source.load(tmp_path)
    # The pool is in the order of the lists: 6 training images, 9 of the test list, 2 more of the database.
    assert numbers(data) == {
        "train": [0, 1, 2, 3, 4, 5],
        "test": [6, 8, 10, 12, 14],
        "validation": [7, 9, 11, 13],
        "database": [0, 1, 2, 3, 4, 5, 15, 16],
    }


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("coco", {"year": "2017"}, "'year' expects null or 2014 with split authors-2024"),
        ("coco", {"lists": "x"}, "'lists' expects its default, null, with split authors-2024, which ignores it"),
        ("coco", {"train_draw": 5}, "'train_draw' expects its default, 10000"),
        ("nuswide", {"database": None}, r"'database' expects its default, 'database\.txt'"),
        ("imagenet100", {}, "'lists' expects a folder with split authors-2024: HashNet's lists, got null"),
        ("digits", {}, "'split' expects null, or T/Q/rest .*, such as 500/100/rest, got 'authors-2024'"),
    ],
)
def test_what_plays_no_part_in_such_a_split_is_refused(name, parameters, words):
    with pytest.raises(ValueError, match=words):
        ss.DATASETS.build(name, split="authors-2024", **parameters)

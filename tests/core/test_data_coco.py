"""COCO as distributed, made small: an annotation file for each part, image folders, gaps in the category numbers."""

from __future__ import annotations

import json
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import signsym_core as ss
from signsym_core.datasets import DataNotFoundError, DataWarning, annotations
from signsym_core.datasets.coco import NAMES

#: Categories as COCO has them: not in order, with gaps.
CATEGORIES = [{"id": 90, "name": "toothbrush"}, {"id": 1, "name": "person"}, {"id": 13, "name": "stop sign"}]
#: Image number: categories of its annotations. 40 and 9 have none.
SHOWN = {n: [(1, 13, 90)[n % 3], *([1] if n % 2 else [])] for n in range(10, 40)} | {40: [], 9: [], 41: [13, 13, 90]}
COLUMN = {1: 0, 13: 1, 90: 2}


def made(root, year="2017"):
    """All images of SHOWN, every fourth in the validation part; an image's shade is its number."""
    tree = root / "coco"
    (tree / "annotations").mkdir(parents=True, exist_ok=True)
    for part, ours in ((f"train{year}", lambda n: n % 4), (f"val{year}", lambda n: not n % 4)):
        (tree / part).mkdir()
        numbers = sorted((n for n in SHOWN if ours(n)), key=lambda n: n * 7 % 41)
        name = (lambda n: f"{n:012d}.jpg") if year == "2017" else (lambda n, part=part: f"COCO_{part}_{n:012d}.jpg")
        for number in numbers:
            Image.fromarray(np.full((9, 12, 3), number * 5, dtype=np.uint8)).save(
                tree / part / name(number), quality=100
            )
        content = {
            "info": {},
            "images": [{"id": n, "file_name": name(n), "height": 9, "width": 12} for n in numbers],
            "annotations": [
                {"id": 1, "image_id": n, "category_id": c, "iscrowd": 0} for n in numbers for c in SHOWN[n]
            ],
            "categories": CATEGORIES,
        }
        (tree / "annotations" / f"instances_{part}.json").write_text(json.dumps(content))
    return root


def source(**parameters):
    return ss.DATASETS.build("coco", **({"size": 8, "train_draw": 12, "test_draw": 6} | parameters))


def shown(split):
    """{image number: its labels} from pixels and labels."""
    numbers = (split.images[:, 0, 0, 0].float() / 5).round().int().tolist()
    return {n: set(row.nonzero().flatten().tolist()) for n, row in zip(numbers, split.labels, strict=True)}


def test_every_image_has_its_objects_under_numbers_without_gaps(tmp_path):
    data = source().load(made(tmp_path))
    assert data.classes == ("person", "stop sign", "toothbrush")
    parts = [shown(split) for split in (data.train, data.test, data.database)]
    assert [len(part) for part in parts] == [12, 6, 31 - 18]
    together = parts[0] | parts[1] | parts[2]
    assert together == {n: {COLUMN[c] for c in found} for n, found in SHOWN.items() if found}
    assert data.train.labels.dtype is torch.uint8


def test_images_without_annotations_are_left_out_or_searched(tmp_path):
    made(tmp_path)
    assert not {9, 40} & set(shown(source().load(tmp_path).database))
    data = source(unlabelled="database").load(tmp_path)
    found = shown(data.database)
    assert (found[9], found[40]) == (set(), set())
    assert not {9, 40} & (set(shown(data.train)) | set(shown(data.test)))
    assert {9, 40} & set(
        shown(source(unlabelled="database", classes=["person", "toothbrush"]).load(tmp_path).database)
    ) == set()


def test_both_releases_give_the_same_parts(tmp_path):
    new, old = source().load(made(tmp_path / "new")), source().load(made(tmp_path / "old", "2014"))
    for part in ("train", "test", "database"):
        assert shown(getattr(new, part)) == shown(getattr(old, part))
        assert torch.equal(getattr(new, part).indices, getattr(old, part).indices)


def test_the_release_can_be_chosen(tmp_path):
    made(made(tmp_path), "2014")
    assert source(year="2014").listing(tmp_path).files[0].startswith(("train2014", "val2014"))
    assert source().listing(tmp_path).files[0].startswith(("train2017", "val2017"))


def test_the_table_of_labels_is_parsed_once(tmp_path, monkeypatch):
    first = source().load(made(tmp_path))
    monkeypatch.setattr(annotations, "_parse", lambda file: pytest.fail(f"parsed again: {file}"))
    again = source().load(tmp_path)
    assert shown(again.train) == shown(first.train)
    assert again.classes == first.classes


def test_per_class_draws_work_with_several_labels(tmp_path):
    data = source(split="3/2/rest").load(made(tmp_path))
    assert (len(data.train), len(data.test), len(data.database)) == (9, 6, 31 - 15)


def test_a_draw_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"expected more than 36 annotated images .* got 31"):
        source(train_draw=30).load(made(tmp_path))


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"/coco does not exist.*instances_train2017\.json"):
        source().load(tmp_path)
    tree = made(tmp_path) / "coco"
    (tree / "train2017" / f"{11:012d}.jpg").unlink()
    with pytest.raises(
        DataNotFoundError, match=r"1 of 33 annotated images are not below .* train2017/000000000011\.jpg"
    ):
        source().load(tmp_path)
    (tree / "annotations/instances_val2017.json").unlink()
    with pytest.raises(
        DataNotFoundError, match=r"annotation files are missing: .*instances_val2017\.json, .*train2014"
    ):
        source().load(tmp_path)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda tree: "{", "expected COCO's annotations as JSON"),
        (lambda tree: [], "expected an object with images, annotations and categories, got list"),
        (lambda tree: tree | {"images": None}, "expected a list 'images'"),
        (
            lambda tree: tree | {"images": [{"id": "1", "file_name": "x"}]},
            r"images\[0\]: expected id \(int\) and file_name",
        ),
        (
            lambda tree: tree | {"categories": CATEGORIES * 2},
            "expected every image and every category to have a unique number",
        ),
        (
            lambda tree: tree | {"annotations": [{"image_id": 11, "category_id": 2}]},
            r"annotations\[0\]: expected an image and a category of this file, got image 11, category 2",
        ),
        (lambda tree: "[" * 100_000, "expected COCO's annotations as JSON"),
        (
            lambda tree: tree | {"annotations": [{"image_id": True, "category_id": 1}]},
            r"annotations\[0\]: expected image_",
        ),
        (lambda tree: tree | {"images": [{"id": 2**63, "file_name": "x.jpg"}]}, r"images\[0\]: expected id \(int\)"),
        *(
            (
                lambda tree, name=name: tree | {"images": [{"id": 11, "file_name": name}]},
                r"images\[0\]: expected the name",
            )
            for name in ("", "/etc/x.jpg", "../val2017/x.jpg", "a/../x.jpg", "a/", "./x.jpg")
        ),
        (
            lambda tree: tree | {"images": [{"id": at, "file_name": "x.jpg"} for at in (1, 2)]},
            "images: expected every file_name once, got 'x.jpg' twice",
        ),
        (
            lambda tree: tree | {"categories": [{"id": at, "name": "cat"} for at in (1, 2)]},
            "categories: expected every name once, got 'cat' twice",
        ),
    ],
)
def test_an_annotation_file_of_another_form_is_refused(tmp_path, change, words):
    file = made(tmp_path) / "coco/annotations/instances_train2017.json"
    changed = change(json.loads(file.read_text()))
    file.write_text(changed if isinstance(changed, str) else json.dumps(changed))
    with pytest.raises(ValueError, match=rf"instances_train2017\.json: {words}"):
        source().load(tmp_path)


def test_lists_name_images_of_either_release(tmp_path):
    made(tmp_path)
    entries = {
        "train": [("./data/coco/train2014/COCO_train2014_000000000011.jpg", "person")],
        "test": [("./data/coco/val2014/COCO_val2014_000000000012.jpg", "zebra")],
        "database": [
            ("./data/coco/val2014/COCO_val2014_000000000012.jpg", "zebra"),
            ("./data/coco/train2014/COCO_train2014_000000000013.jpg", "airplane"),
        ],
    }
    (tmp_path / "hashnet").mkdir()
    for part, lines in entries.items():
        text = "".join(f"{path} {' '.join(str(int(name == shown)) for name in NAMES)}\n" for path, shown in lines)
        (tmp_path / "hashnet" / f"{part}.txt").write_text(text)
    data = source(lists="hashnet").load(tmp_path)
    assert len(data.classes) == 80
    got = [
        {n: data.classes[next(iter(ones))] for n, ones in shown(s).items()}
        for s in (data.train, data.test, data.database)
    ]
    assert got == [{11: "person"}, {12: "zebra"}, {13: "airplane"}]
    assert set(shown(source(lists="hashnet", queries_in_database=True).load(tmp_path).database)) == {12, 13}
    (tmp_path / "hashnet/database.txt").unlink()
    assert source(lists="hashnet", database=None).load(tmp_path).database is None


def test_a_number_in_both_parts_is_refused(tmp_path):
    file = made(tmp_path) / "coco/annotations/instances_val2017.json"
    tree = json.loads(file.read_text())
    tree["images"][0]["id"] = 11
    tree["annotations"] = []
    file.write_text(json.dumps(tree))
    with pytest.raises(
        ValueError, match="expected every image to have a unique number, got number 11 in train2017 and val2017"
    ):
        source().load(tmp_path)


def test_a_damaged_table_of_labels_is_made_again_and_said(tmp_path):
    made(tmp_path)
    labels = source().load(tmp_path).train.labels
    (table, _) = sorted((tmp_path / ".signsym-cache").glob("*.npz"))
    content, silent = table.read_bytes(), 0
    for position in range(0, len(content), max(1, len(content) // 40)):
        changed = bytearray(content)
        changed[position] ^= 16
        table.write_bytes(changed)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always", DataWarning)
            assert torch.equal(source().load(tmp_path).train.labels, labels)
        # Some bytes of a zip archive say nothing; any other is noticed.
        told = [w for w in caught if issubclass(w.category, DataWarning)]
        silent += not told
        table.write_bytes(content)
    assert silent < 20
    table.write_bytes(content[:-40])
    with pytest.warns(DataWarning, match="is damaged .* it is made again from"):
        assert torch.equal(source().load(tmp_path).train.labels, labels)

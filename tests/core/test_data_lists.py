"""List files: small excerpts in the literature's format, foreign prefixes, and errors with file and line."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import signsym_core as ss
from signsym_core.datasets import DataNotFoundError
from signsym_core.datasets.imagenet100 import WNIDS
from signsym_core.datasets.listfile import read_list


def picture(file, shade=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((12, 14, 3), shade, dtype=np.uint8)).save(file)


def row(width, *ones):
    return " ".join("1" if at in ones else "0" for at in range(width))


def load(name, root, **parameters):
    return ss.DATASETS.build(name, **({"size": 8} | parameters)).load(root)


#: Paths as somebody else's machine had them, with their labels of three classes.
LISTED = {
    "train": [
        ("./data/set/images/a.png", (0,)),
        ("./data/set/images/b.png", (1, 2)),
        ("./data/set/images/c.png", (2,)),
    ],
    "test": [("./data/set/images/d.png", (0, 1)), ("./data/set/images/e.png", (2,))],
    "database": [
        ("./data/set/images/d.png", (0, 1)),
        ("./data/set/images/f.png", ()),
        ("./data/set/images/a.png", (0,)),
    ],
}
SHADES = {name: 10 * at for at, name in enumerate("abcdef", start=1)}


@pytest.fixture
def root(tmp_path):
    for name, shade in SHADES.items():
        picture(tmp_path / f"images/{name}.png", shade)
    for part, entries in LISTED.items():
        write(tmp_path / f"{part}.txt", entries)
    return tmp_path


def write(file, entries, width=3):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(f"{path} {row(width, *ones)}\n" for path, ones in entries))


def shades(split):
    return split.images[:, 0, 0, 0].tolist()


def test_every_image_has_the_labels_of_its_line_in_every_list(root):
    data = load("lists", root, queries_in_database=True)
    assert data.multi_label
    for part, entries in LISTED.items():
        split = getattr(data, part)
        got = {
            shade: set(labels.nonzero().flatten().tolist())
            for shade, labels in zip(shades(split), split.labels, strict=True)
        }
        assert got == {SHADES[Path(path).stem]: set(ones) for path, ones in entries}


def test_queries_leave_the_database_unless_asked_to_stay(root):
    assert sorted(shades(load("lists", root).database)) == [10, 60]
    assert sorted(shades(load("lists", root, queries_in_database=True).database)) == [10, 40, 60]


def test_an_image_has_one_number_in_all_parts(root):
    data = load("lists", root, queries_in_database=True)
    number = dict(zip(shades(data.train), data.train.indices.tolist(), strict=True))
    searched = dict(zip(shades(data.database), data.database.indices.tolist(), strict=True))
    assert number[10] == searched[10]
    assert len(set(searched.values())) == 3


def test_a_class_that_is_chosen_brings_the_images_that_have_it(root):
    data = load("lists", root, classes=[2, 0])
    assert data.classes == ("2", "0")
    got = dict(zip(shades(data.train), data.train.labels.tolist(), strict=True))
    assert got == {10: [0, 1], 20: [1, 0], 30: [1, 0]}
    assert shades(data.database) == [10]


def test_one_label_everywhere_is_one_class_per_image(root):
    for part, entries in LISTED.items():
        write(root / f"{part}.txt", [(path, ones[:1] or (1,)) for path, ones in entries])
    data = load("lists", root)
    assert data.train.labels.dtype is torch.int64
    assert dict(zip(shades(data.train), data.train.labels.tolist(), strict=True)) == {10: 0, 20: 1, 30: 2}


def test_without_a_database_list_the_training_images_are_searched(root):
    (root / "database.txt").unlink()
    with pytest.raises(DataNotFoundError, match=r"database\.txt does not exist; set the parameter 'database' to null"):
        load("lists", root)
    assert load("lists", root, database=None).database is None


def test_lists_may_lie_apart_from_the_images(root):
    for part in LISTED:
        (root / "elsewhere").mkdir(exist_ok=True)
        (root / f"{part}.txt").rename(root / f"elsewhere/{part}.txt")
    assert len(load("lists", root, path="images", lists="elsewhere").train) == 3
    with pytest.raises(DataNotFoundError, match=r"no train\.txt and test\.txt in .*/images/none or .*/none"):
        load("lists", root, path="images", lists="none")


def test_paths_may_hold_spaces_and_backslashes(root):
    picture(root / "images/my holiday 1.png", 99)
    write(root / "train.txt", [(r"C:\data\images\my holiday 1.png", (0,)), ("images/a.png", (0,))])
    assert sorted(shades(load("lists", root).train)) == [10, 99]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("images/a.png 0 1", "expected a path and 3 labels 0 or 1, got 2 labels"),
        ("images/a.png 0 1 2", "expected a path and 3 labels 0 or 1, got 0 labels"),
        ("images/a.png 0 1 -1", "expected a path and 3 labels 0 or 1, got 0 labels"),
        ("images/a.png", "expected a path and 3 labels 0 or 1, got 0 labels"),
        ("images/a.png 0 0 0", "expected at least one label of 'images/a.png' to be 1, got only 0"),
        ("images/b.png 0 1 0", "expected each image once, got 'images/b.png', as in line 1"),
        ("images/gone.png 0 1 0", "1 of 2 listed images are not below .* images/gone.png, gone.png"),
        ("other/images/b.png 0 1 0", "'other/images/b.png' is the file that line 1 has led to already"),
        # Its path would be "images/a.png 0".
        ("images/a.png 0 0 1 0", "expected a path and 3 labels 0 or 1, got 4 labels 0 or 1 at the end of"),
        ("images/a.png\t1\t0 1 0", "expected a path and 3 labels 0 or 1, got 4 labels"),
        ("images/a.png 10 1", "expected a path and 3 labels 0 or 1, got 1 labels"),
        ("images/a.png 0 1 1.0", "expected a path and 3 labels 0 or 1, got 0 labels"),
        ("images/a.png 0 1 O", "expected a path and 3 labels 0 or 1, got 0 labels"),
        ("images/a.png 0 1 \u0661", "expected a path and 3 labels 0 or 1, got 0 labels"),
        ("images/a.png,0,1,0", "expected a path and 3 labels 0 or 1, got 0 labels"),
        ("0 1 0", "expected a path and 3 labels 0 or 1"),
        ("1 0 1 0", "expected a path and 3 labels 0 or 1"),
        (" 0 1 0", "expected a path and 3 labels 0 or 1"),
        ("\timages/a.png 0 1 0", "expected the path of a file at the start of the line, got "),
        ("images/ 0 1 0", "expected the path of a file at the start"),
        ("/ 0 1 0", "expected the path of a file at the start"),
        ("../.. 0 1 0", "expected the path of a file at the start"),
        (". 0 1 0", "expected the path of a file at the start"),
        ("images/x/../a.png 0 1 0", "expected a path without '..' after a name, got 'images/x/../a.png'"),
        ("images\\..\\a.png 0 1 0", "expected a path without '..' after a name"),
        ("images/a.png\x00 0 1 0", r".*got the character '\\x00'"),
        ("images/a.png 0 1 0\rimages/c.png 0 1 0", r".*got the character '\\r'"),
        ("images/a.png 0 1 0\x0cimages/c.png 0 1 0", r".*got the character '\\x0c'"),
        ("images 0 1 0", "1 of 2 listed images are not below .* as files"),
    ],
)
def test_a_line_that_is_wrong_is_named(root, line, words):
    (root / "train.txt").write_text(f"images/b.png 0 1 0\n\n{line}\n")
    number = 3
    with pytest.raises((ValueError, DataNotFoundError), match=rf"train\.txt:{number}: {words}"):
        load("lists", root, database=None)


@pytest.mark.parametrize(
    ("content", "words"), [(b"", "got none"), (b"a\xff 0 1", "expected UTF-8"), (b"a 1", "at least two")]
)
def test_a_file_that_is_no_list_is_refused(tmp_path, content, words):
    (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(ValueError, match=rf"list\.txt.*{words}"):
        read_list(tmp_path / "list.txt")


def test_two_lists_that_disagree_are_refused(root):
    write(root / "database.txt", [("images/f.png", ()), ("images/a.png", (1,))])
    with pytest.raises(
        ValueError, match=r"database\.txt:2: expected the labels that another list gives 'images/a\.png'"
    ):
        load("lists", root)


def nuswide(root, width=21):
    parts = {"train": "abcd", "test": "ef"}
    for part, names in parts.items():
        for at, name in enumerate(names):
            picture(root / f"nuswide/images/0{at}_{name}.jpg")
        write(
            root / f"nuswide/{part}.txt", [(f"images/0{at}_{n}.jpg", (at, at + 5)) for at, n in enumerate(names)], width
        )
    return root


def test_nuswide_has_21_columns(tmp_path):
    data = load("nuswide", nuswide(tmp_path), database=None)
    assert data.train.labels.shape == (4, 21)
    assert data.multi_label
    with pytest.raises(ValueError, match=r"train\.txt:1: expected a path and 21 labels 0 or 1, got 81 labels"):
        load("nuswide", nuswide(tmp_path, 81), database=None)


def test_nuswide_stays_multi_label_where_an_excerpt_has_single_ones(tmp_path):
    nuswide(tmp_path)
    write(tmp_path / "nuswide/train.txt", [("images/00_a.jpg", (3,))], 21)
    write(tmp_path / "nuswide/test.txt", [("images/00_e.jpg", (4,))], 21)
    assert load("nuswide", tmp_path, database=None).multi_label


@pytest.fixture
def imagenet(tmp_path):
    """ImageNet's folders with three training images and one validation image of each of the hundred classes."""
    for at, wnid in enumerate([*WNIDS, "n99999999"]):
        for number in range(3):
            picture(tmp_path / f"imagenet/train/{wnid}/{wnid}_{number}.JPEG", at)
        picture(tmp_path / f"imagenet/val/{wnid}/ILSVRC2012_val_{at:08d}.JPEG", at)
    return tmp_path


def test_imagenet_is_read_from_torchvisions_folders(imagenet):
    data = load("imagenet", imagenet)
    assert (len(data.train), len(data.test), len(data.classes)) == (303, 101, 101)
    assert (data.train.labels == data.train.images[:, 0, 0, 0]).all()
    with pytest.raises(DataNotFoundError, match=r"missing .*/none/train and .*/none/val"):
        load("imagenet", imagenet, path="none")


def test_imagenet100_draws_its_training_images_and_searches_all(imagenet):
    data = load("imagenet100", imagenet, train_draw=2)
    assert [len(s) for s in (data.train, data.test, data.database)] == [200, 100, 300]
    assert torch.bincount(data.train.labels).tolist() == [2] * 100
    assert (data.train.labels == data.train.images[:, 0, 0, 0]).all()
    assert set(data.train.indices.tolist()) <= set(data.database.indices.tolist())
    assert data.classes == WNIDS
    with pytest.raises(DataNotFoundError, match=r"100 of 100 classes have fewer than 130 images.*n01514668 \(3\)"):
        load("imagenet100", imagenet)


@pytest.mark.parametrize("searched", [True, False])
def test_imagenet100_finds_listed_images_in_imagenets_folders(imagenet, searched):
    folder = imagenet / "hashnet"
    train = [(f"./data/imagenet/image/{WNIDS[at]}_1.JPEG", (at,)) for at in (5, 0, 99)]
    write(folder / "train.txt", train, 100)
    write(
        folder / "test.txt", [(f"./data/imagenet/val_image/ILSVRC2012_val_{at:08d}.JPEG", (at,)) for at in (7, 8)], 100
    )
    if searched:
        write(folder / "database.txt", [*train, (f"./data/imagenet/image/{WNIDS[2]}_0.JPEG", (2,))], 100)
    data = load("imagenet100", imagenet, lists="hashnet")
    assert sorted(data.train.labels.tolist()) == [0, 5, 99]
    assert sorted(data.test.labels.tolist()) == [7, 8]
    assert len(data.database) == (4 if searched else 300)
    for split in (data.train, data.test, data.database):
        assert (split.labels == split.images[:, 0, 0, 0]).all()


def test_imagenet100_searches_no_query_where_its_queries_are_training_images_of_imagenet(imagenet):
    for name, number in (("train", 1), ("test", 0)):
        rows = [(f"{WNIDS[at]}_{number}.JPEG", (at,)) for at in (5, 0, 99)]
        write(imagenet / f"hashnet/{name}.txt", [(f"image/{file}", at) for file, at in rows], 100)
    data = load("imagenet100", imagenet, lists="hashnet")
    assert len(data.test) == 3
    assert len(data.database) == 297
    assert not set(data.test.indices.tolist()) & set(data.database.indices.tolist())


@pytest.mark.parametrize(
    "text",
    [
        "images/a.png 1 0 0\nimages/b.png 0 1 1\n",
        "images/a.png 1 0 0\nimages/b.png 0 1 1",
        "\ufeffimages/a.png 1 0 0\nimages/b.png 0 1 1\n",
        "images/a.png 1 0 0\r\nimages/b.png 0 1 1\r\n",
        "images/a.png\t1\t0\t0\nimages/b.png\t0\t1\t1\n",
        "images/a.png  1   0 0 \t \nimages/b.png \t0 1 1   \n",
        "\n\nimages/a.png 1 0 0\n \t\n\r\nimages/b.png 0 1 1\n\n\n",
        "/home/else/images/a.png 1 0 0\n../data/images/b.png 0 1 1\n",
    ],
    ids=["plain", "no end", "mark", "crlf", "tabs", "blanks", "empty lines", "foreign"],
)
def test_what_the_docstring_accepts_is_read_alike(root, text):
    (root / "train.txt").write_bytes(text.encode())
    data = load("lists", root, database=None)
    assert dict(zip(shades(data.train), data.train.labels.tolist(), strict=True)) == {10: [1, 0, 0], 20: [0, 1, 1]}


def test_blanks_of_other_scripts_belong_to_the_path(root):
    name = "ein\u00a0bild\u2028\u3000\x85.png"
    picture(root / "images" / name, 77)
    write(root / "train.txt", [(f"images/{name}", (0,)), ("images/a.png", (1,))])
    assert sorted(shades(load("lists", root, database=None).train)) == [10, 77]


def test_an_absolute_path_to_another_file_is_refused_and_one_to_the_same_is_taken(root, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.png"
    picture(elsewhere, 99)
    picture(root / "a.png", 98)
    (root / "train.txt").write_text(f"images/b.png 0 1 0\n{elsewhere} 0 1 0\n")
    with pytest.raises(
        ValueError, match=rf"train\.txt:2: expected a file below {root}, got {elsewhere}, which is there"
    ):
        load("lists", root, database=None)
    (root / "train.txt").write_text(f"images/b.png 0 1 0\n{root / 'images/a.png'} 0 1 0\n")
    assert sorted(shades(load("lists", root, database=None).train)) == [10, 20]


def test_a_query_that_is_trained_on_is_refused_where_the_parts_are_not_drawn_anew(root):
    write(root / "test.txt", [("images/d.png", (0, 1)), ("images/b.png", (1, 2))])
    words = (
        r"test\.txt:2: expected test images that are not trained on, got 'images/b\.png', which .*train\.txt names too"
    )
    with pytest.raises(ValueError, match=words):
        load("lists", root)
    for name in "ghi":
        picture(root / f"images/{name}.png", 100)
    for part in ("train", "test", "database"):
        entries = [(f"images/{name}.png", (at % 3,)) for at, name in enumerate("abcdefghi")]
        write(root / f"{part}.txt", entries)
    assert [len(load("lists", root, split="1/1/rest").test), len(load("lists", root, split="1/1/rest").train)] == [3, 3]


def test_listed_links_to_one_file_are_refused(root):
    (root / "images/copy.png").symlink_to("a.png")
    write(root / "train.txt", [("images/copy.png", (0,)), ("images/a.png", (0,))])
    with pytest.raises(ValueError, match=r"images/copy\.png and images/a\.png, which a link makes one file"):
        load("lists", root, database=None)


def test_listed_pipes_and_links_to_nothing_are_no_files(root):
    (root / "images/nothing.png").symlink_to("gone")
    (root / "images/circle.png").symlink_to("circle.png")
    os.mkfifo(root / "images/pipe.png")
    for name in ("nothing", "circle", "pipe"):
        write(root / "train.txt", [("images/a.png", (0,)), (f"images/{name}.png", (0,))])
        with pytest.raises(DataNotFoundError, match=r"train\.txt:2: 1 of 2 listed images are not below .* as files"):
            load("lists", root, database=None)


@pytest.mark.parametrize("dataset", ["coco", "nuswide", "imagenet100"])
def test_a_column_too_many_is_refused_wherever_it_stands(tmp_path, dataset):
    """The number in a file's name would find the image all the same, one column off."""
    width = {"coco": 80, "nuswide": 21, "imagenet100": 100}[dataset]
    source = ss.DATASETS[dataset]
    file = tmp_path / "list.txt"
    rows = [f"train2014/COCO_train2014_{at:012d}.jpg {row(width, at)}" for at in range(4)]
    file.write_text("\n".join(rows))
    assert read_list(file, width).labels.argmax(1).tolist() == [0, 1, 2, 3]
    for at in range(4):
        file.write_text("\n".join([*rows[:at], rows[at].replace(".jpg", ".jpg 0"), *rows[at + 1 :]]))
        with pytest.raises(
            ValueError, match=rf"list\.txt:{at + 1}: expected a path and {width} labels 0 or 1, got {width + 1}"
        ):
            read_list(file, width)
    assert source.name == dataset

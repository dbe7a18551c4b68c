"""`signsym data`: what it finds, names and decodes, on small data in the real layouts."""

from __future__ import annotations

import json
import os
import re

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import signsym_core as ss
from orchestrator.commands.cli import main
from signsym_core.datasets.files import cache_places


@pytest.fixture
def root(tmp_path):
    """Two classes of five training and two test images."""
    chance = np.random.default_rng(0)
    for part, count in (("train", 5), ("test", 2)):
        for name in ("cat", "dog"):
            for at in range(count):
                file = tmp_path / part / name / f"{at}.png"
                file.parent.mkdir(parents=True, exist_ok=True)
                Image.fromarray(chance.integers(0, 256, (9, 12, 3), dtype=np.uint8)).save(file)
    return tmp_path


@pytest.fixture
def data(capfd):
    """Runs the command; gives its status and what it printed, standard error included."""

    def run(*arguments):
        status = main(["data", *map(str, arguments)])
        out, err = capfd.readouterr()
        return status, out + err

    return run


@pytest.mark.parametrize("name", ss.DATASETS.names)
def test_every_data_set_says_where_it_comes_from_and_what_is_missing(name, data, tmp_path):
    status, said = data("check", name, "--data-root", tmp_path / "nowhere")
    source = ss.DATASETS[name]
    for words in (source.origin.url, source.origin.licence, source.origin.size):
        assert words in said
    assert status == (0 if "offline" in source.tags else 1)
    assert ("missing: " in said) == (status == 1)
    assert not (tmp_path / "nowhere").exists()


def test_check_counts_and_writes_nothing(root, data):
    before = sorted(root.rglob("*"))
    status, said = data("check", "imagefolder", "--data-root", root, "--set", "size=8")
    assert status == 0
    assert "train: 10 images, 2 classes with 5 to 5 images" in said
    assert "test: 4 images, 2 classes with 2 to 2 images" in said
    assert "sample: 14 of 14 images decode" in said
    assert "to decode: 14 images" in said
    assert sorted(root.rglob("*")) == before


def test_prepare_decodes_once_and_check_sees_it(root, data, monkeypatch):
    status, said = data("prepare", "imagefolder", "--data-root", root, "--set", "size=8")
    assert status == 0
    assert "ready: images of 3 x 8 x 8" in said
    assert cache_places(root)[0].is_dir()
    status, said = data("check", "imagefolder", "--data-root", root, "--set", "size=8")
    assert status == 0
    assert "cache: 14 of 14 images decoded, 0 broken" in said
    assert "to decode" not in said
    # Whatever decodes again would fail.
    monkeypatch.setattr("signsym_core.datasets.decode.decoded", None)
    assert data("prepare", "imagefolder", "--data-root", root, "--set", "size=8")[0] == 0


def test_prepare_compresses_and_check_tells_the_room_before_and_after(tmp_path, data):
    settings = ("imagefolder", "--data-root", tmp_path, "--set", "size=128")
    for at, photo in enumerate(load_sample_images().images * 2):
        Image.fromarray(photo[:256, :256]).save(_made(tmp_path / ("train", "test")[at // 2] / "ab"[at % 2] / "0.png"))
    _, said = data("check", *settings)
    assert re.search(r"to decode: 4 images, 0\.2 MB, about a minute on \d+ cores", said)
    assert re.search(r"with --compress: about 0\.1 MB and a minute, by 4 images", said)
    status, said = data("prepare", *settings, "--compress")
    assert status == 0
    assert (share := re.search(r"room: 0\.1 MB on the disk for 0\.2 MB of pixels \((\d+)%\)", said))
    assert 25 < int(share[1]) < 75
    assert share[0] in data("check", *settings)[1]
    # Another size is compressed as this one is.
    _, said = data("check", *settings[:3], "--set", "size=64")
    assert re.search(r"to decode: 4 images, 0\.0 MB compressed, 0\.0 MB of pixels", said)


def test_a_cache_that_is_not_compressed_is_refused_where_that_is_asked_for(root, data):
    data("prepare", "imagefolder", "--data-root", root, "--set", "size=8")
    status, said = data("prepare", "imagefolder", "--data-root", root, "--set", "size=8", "--compress")
    assert status == 2
    assert "exists and is not compressed: delete it" in " ".join(said.split())
    status, said = data("prepare", "digits", "--compress")
    assert status == 2
    assert "--compress: expected a data set of image files, got digits" in said


def test_check_sees_a_file_that_changed_under_the_same_size_and_time(root, data):
    settings = ("imagefolder", "--data-root", root, "--set", "size=8")
    _, before = data("prepare", *settings)
    file = root / "train/cat/3.png"
    status, content = file.stat(), (root / "train/dog/3.png").read_bytes()
    file.write_bytes(content.ljust(status.st_size, b"\0")[: status.st_size])
    os.utime(file, ns=(status.st_atime_ns, status.st_mtime_ns))
    status, said = data("check", *settings)
    assert status == 1
    assert f"{file} has other bytes than when it was decoded" in said.replace("\n", " ").replace("  ", " ")
    assert "fingerprint: " in before


@pytest.mark.parametrize("action", ["check", "prepare"])
def test_a_broken_image_is_named_and_stops_where_the_user_does_not_skip_it(root, data, action):
    (root / "train/cat/3.png").write_bytes(b"no image")
    status, said = data(action, "imagefolder", "--data-root", root, "--set", "size=8")
    assert status == 1
    assert "broken: " in said
    assert str(root / "train/cat/3.png") in said
    status, said = data(action, "imagefolder", "--data-root", root, "--set", "size=8", "--set", "broken=skip")
    assert status == 0
    assert str(root / "train/cat/3.png") in said


def test_a_count_other_than_the_published_one_is_told(tmp_path, data):
    folder = tmp_path / "nuswide"
    for at in range(4):
        Image.new("RGB", (8, 8), (at, 0, 0)).save(_made(folder / f"images/{at}.jpg"))
    row = " ".join(["1"] + ["0"] * 20)
    for part, images in (("train", (0, 1)), ("test", (2,)), ("database", (3,))):
        (folder / f"{part}.txt").write_text("".join(f"./data/images/{at}.jpg {row}\n" for at in images))
    status, said = data("check", "nuswide", "--data-root", tmp_path)
    assert status == 0, said
    assert "train: 2 images (its publication has 10,500), 21 classes with 0 to 2 images, 1.00 labels an image" in said
    assert "database: 1 images" in said


def test_settings_and_names_are_checked(data, tmp_path):
    for arguments, words in (
        (["coco", "--set", "size=x"], "parameter 'size' expects a whole number or null, got 'x'"),
        (["cocoo"], "did you mean 'coco'?"),
        (["coco", "--set", "size"], "expected KEY=VALUE"),
        (["digits", "--set", "sise=8"], "did you mean 'size'?"),
        (["digits", "--sample", "-1"], "--sample: expected a whole number, at least 0, got -1"),
    ):
        status, said = data("check", *arguments, "--data-root", tmp_path)
        assert status == 2
        assert words in said


def test_a_damaged_annotation_file_is_named(tmp_path, data):
    for part in ("train2017", "val2017"):
        (tmp_path / "coco" / part).mkdir(parents=True)
        _made(tmp_path / f"coco/annotations/instances_{part}.json").write_text(json.dumps({"images": []}))
    status, said = data("check", "coco", "--data-root", tmp_path)
    assert status == 2
    assert "instances_train2017.json: expected a list 'categories'" in said


def _made(file):
    file.parent.mkdir(parents=True, exist_ok=True)
    return file

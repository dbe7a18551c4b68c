"""Which files count as images, and what is done with those that are not: true formats, links, pipes and bombs."""

from __future__ import annotations

import io
import os
import resource
import socket
import struct
import subprocess
import zlib

import numpy as np
import pytest
from PIL import Image

import signsym_core as ss
from signsym_core.datasets import DataNotFoundError
from signsym_core.datasets import decode as decoding
from signsym_core.datasets.decode import MOST_PIXELS, BrokenImageError, extent, read


def load(root, **parameters):
    return ss.DATASETS.build("imagefolder", **({"size": 8} | parameters)).load(root)


def picture(file, shade=0):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(file)
    return file


@pytest.fixture
def root(tmp_path):
    """Four images of each of two classes in each of two parts, each of a shade of its own."""
    for number, place in enumerate(("train/a", "train/b", "test/a", "test/b")):
        for at in range(4):
            picture(tmp_path / place / f"{at}.png", 10 * number + at)
    return tmp_path


def shades(split):
    return dict(zip(split.images[:, 0, 0, 0].tolist(), split.labels.tolist(), strict=True))


EXPECTED = {0: 0, 1: 0, 2: 0, 3: 0, 10: 1, 11: 1, 12: 1, 13: 1}


# Formats

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"


@pytest.mark.parametrize("kind", ["eps", "gif", "ico", "tga", "pcx", "icns", "pdf", "svg", "text", "empty", "html"])
def test_other_formats_are_broken_images_whatever_they_are_called(tmp_path, kind, monkeypatch):
    content = {"eps": EPS, "svg": b"<svg/>", "text": b"no image", "empty": b"", "html": b"<html></html>"}
    if kind not in content:
        buffer = io.BytesIO()
        Image.new("RGB", (32, 32)).save(buffer, kind)
        content[kind] = buffer.getvalue()
    (tmp_path / "x.jpg").write_bytes(content[kind])
    # Whoever starts a program fails.
    monkeypatch.setattr(subprocess, "Popen", None)
    monkeypatch.setattr(os, "system", None)
    got = "an empty file" if kind == "empty" else "a file that begins with b"
    with pytest.raises(BrokenImageError, match=rf"x\.jpg cannot be decoded: expected JPEG, PNG, .* or PPM, got {got}"):
        read(tmp_path / "x.jpg", 8)
    assert extent(tmp_path / "x.jpg") is None


def test_ghostscript_would_be_started_without_the_list_of_formats(tmp_path, monkeypatch):
    (tmp_path / "x.jpg").write_bytes(EPS)
    started = []
    monkeypatch.setattr(subprocess, "check_call", lambda command, **_: started.append(command))
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", "gs")
    monkeypatch.setattr("PIL.EpsImagePlugin.has_ghostscript", lambda: True)
    with pytest.raises(BrokenImageError):
        read(tmp_path / "x.jpg", None)
    assert not started
    monkeypatch.setattr(decoding, "FORMATS", None)
    with pytest.raises(BrokenImageError):
        read(tmp_path / "x.jpg", None)
    assert started


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "TIFF", "PPM"])
def test_a_format_is_known_by_content(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "x", kind, **({"lossless": True} if kind == "WEBP" else {}))
    (tmp_path / "x").rename(tmp_path / "x.jpg")
    assert (read(tmp_path / "x.jpg", None) == noise).all()


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "WEBP", "TIFF", "PPM"])
def test_a_file_that_is_cut_anywhere_is_broken_or_gives_every_pixel(tmp_path, kind):
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, kind)
    content = buffer.getvalue()
    file = tmp_path / "x.jpg"
    file.write_bytes(content)
    pixels, broken = read(file, None), 0
    for length in [*range(0, len(content), max(1, len(content) // 60)), *range(len(content) - 30, len(content))]:
        file.write_bytes(content[:length])
        try:
            assert (read(file, None) == pixels).all(), length
        except BrokenImageError:
            broken += 1
    assert broken >= 60


# Sizes


def png(width, height, depth=8, colour=2):
    """A PNG whose header states that size, with a few bytes of data that expand to nothing like it."""

    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(("width", "height"), [(8193, 8192), (30_000, 30_000), (100_000, 100_000), (2**26 + 1, 1)])
def test_a_header_that_states_too_many_pixels_is_refused_before_decoding(tmp_path, width, height):
    (tmp_path / "bomb.png").write_bytes(png(width, height))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(
        BrokenImageError, match=rf"bomb\.png cannot be decoded: expected at most {MOST_PIXELS:,} pixels"
    ):
        read(tmp_path / "bomb.png", 8)
    # In KiB: far below what the image would take.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


def test_a_strip_that_would_be_scaled_to_too_many_pixels_is_refused(tmp_path):
    Image.new("RGB", (100_000, 1)).save(tmp_path / "strip.png")
    assert read(tmp_path / "strip.png", None).shape == (1, 100_000, 3)
    with pytest.raises(BrokenImageError, match=r"strip\.png.*once the shorter side is 224, got 22400000 x 224"):
        read(tmp_path / "strip.png", 224)


def test_the_limit_itself_is_allowed(monkeypatch, tmp_path):
    monkeypatch.setattr(decoding, "MOST_PIXELS", 12 * 9)
    Image.new("RGB", (12, 9)).save(tmp_path / "x.png")
    assert read(tmp_path / "x.png", None).shape == (9, 12, 3)
    Image.new("RGB", (12, 10)).save(tmp_path / "x.png")
    with pytest.raises(BrokenImageError, match="got 12 x 10"):
        read(tmp_path / "x.png", None)


def test_a_file_of_too_many_bytes_is_never_read(tmp_path):
    with open(tmp_path / "x.png", "wb") as file:
        file.write(png(8, 8))
        file.truncate(2**30 + 1)
    with pytest.raises(BrokenImageError, match=r"x\.png cannot be decoded: expected at most 1,073,741,824 bytes"):
        read(tmp_path / "x.png", 8)


def test_16_bit_colour_keeps_its_high_byte(tmp_path):
    rows = b"".join(b"\0" + struct.pack(">6H", 0x1234, 0xFFFF, 0x00FF, 0x8000, 0x7FFF, 0) for _ in range(2))
    header = struct.pack(">IIBBBBB", 2, 2, 16, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    content = b"".join(struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in chunks)
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read(tmp_path / "x.png", None)[0].tolist() == [[0x12, 0xFF, 0x00], [0x80, 0x7F, 0x00]]


# Links


def test_a_link_back_up_is_not_followed(root):
    for place, target in (("train/a/up", ".."), ("train/a/root", "../.."), ("train/b/self", "."), ("test/all", "/")):
        (root / place).symlink_to(target)
    (root / "train/c").symlink_to("../train")
    assert shades(load(root).train) == EXPECTED


def test_two_links_to_themselves_do_not_hang(root):
    for name in ("one", "two"):
        (root / "train/a" / name).symlink_to(".")
        (root / "train/b" / f"{name}.d").symlink_to(f"{name}.d")
    assert shades(load(root).train) == EXPECTED


def test_two_links_to_each_other_do_not_hang(root):
    for one, other in (("one", "two"), ("two", "one")):
        (root / "train/a" / one).symlink_to(f"../b/{other}")
        (root / "train/b" / one).symlink_to(f"../a/{other}")
    assert shades(load(root).train) == EXPECTED


def test_a_folder_outside_that_links_back_is_followed_once(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    picture(outside / "more/x.png", 99)
    (outside / "more/again").symlink_to(outside)
    (outside / "back").symlink_to(root / "train")
    for name in ("link", "second"):
        (root / "train/a" / name).symlink_to(outside)
    assert shades(load(root).train) == EXPECTED | {99: 0}


def test_classes_and_files_may_be_links_to_elsewhere(root, tmp_path_factory):
    outside = tmp_path_factory.mktemp("outside")
    picture(outside / "cats/x.png", 99)
    picture(outside / "y.png", 98)
    (root / "train/c").symlink_to(outside / "cats")
    (root / "train/b/y.png").symlink_to(outside / "y.png")
    assert shades(load(root).train) == EXPECTED | {99: 2, 98: 1}


@pytest.mark.parametrize(
    ("place", "target"),
    [
        ("train/a/other", "../b"),
        ("train/a/copy.png", "0.png"),
        ("train/a/x.png", "../../test/b/1.png"),
        ("train/z", "a"),
        ("test/a/old", "../../train/a"),
    ],
)
def test_one_file_under_two_paths_is_refused_with_both(root, place, target):
    (root / place).symlink_to(target)
    with pytest.raises(
        ValueError, match=r"expected each image once, got t.*\.png and t.*\.png, which a link makes one"
    ):
        load(root)


def test_hard_links_are_files_of_their_own(root):
    os.link(root / "train/a/0.png", root / "train/a/9.png")
    assert len(load(root).train) == 9


def test_of_a_hard_link_and_two_links_the_two_are_told(root):
    os.link(root / "train/a/0.png", root / "train/a/5.png")
    (root / "train/b/7.png").symlink_to("../a/5.png")
    with pytest.raises(ValueError, match=r"train/a/5\.png and train/b/7\.png"):
        load(root)


@pytest.mark.parametrize("target", ["nowhere", "x.png", "0.png/inside"])
def test_a_link_that_leads_nowhere_is_named(root, target):
    (root / "train/a/x.png").symlink_to(target)
    with pytest.raises(
        DataNotFoundError, match=rf"train/a/x\.png: expected a regular file, got a link to {target}, wh"
    ):
        load(root)


# What is no regular file


def test_pipes_and_sockets_are_refused_and_never_opened(root):
    os.mkfifo(root / "train/a/x.png")
    with pytest.raises(ValueError, match=r"train/a/x\.png: expected a regular file, got a FIFO"):
        load(root)
    (root / "train/a/x.png").unlink()
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(root / "train/a/x.png"))
        with pytest.raises(ValueError, match="expected a regular file, got a socket"):
            load(root)
    (root / "train/a/x.png").unlink()
    (root / "train/a/x.png").symlink_to("/dev/zero")
    with pytest.raises(ValueError, match="expected a regular file, got a device"):
        load(root)
    (root / "train/a/x.png").unlink()
    # A pipe that is called otherwise is nobody's image.
    os.mkfifo(root / "train/a/control")
    assert shades(load(root).train) == EXPECTED


def test_a_pipe_that_takes_a_files_place_is_not_waited_for(tmp_path, monkeypatch):
    os.mkfifo(tmp_path / "x.png")
    picture(tmp_path / "y.png")
    regular = os.stat(tmp_path / "y.png")
    with pytest.raises(BrokenImageError, match="expected a regular file, got a FIFO"):
        read(tmp_path / "x.png", 8)
    # As if it had been a file a moment ago.
    monkeypatch.setattr(decoding.os, "stat", lambda _: regular)
    with pytest.raises(BrokenImageError, match="expected a regular file, got a FIFO"):
        read(tmp_path / "x.png", 8)


# Folders


def test_hidden_names_and_other_files_are_left_out(root):
    picture(root / "train/a/.thumb.png")
    (root / "train/a/._0.png").write_bytes(b"\0\5\x16\7resource fork")
    picture(root / "train/.cache/x.png")
    picture(root / "train/a/.cache/x.png")
    (root / "train/a/notes.txt").write_text("no image")
    (root / "train/readme.png").write_text("not in a class")
    assert shades(load(root).train) == EXPECTED


def test_names_that_differ_by_case_alone_are_two(root):
    for part in ("train", "test"):
        picture(root / part / "A/0.png", 77)
    data = load(root)
    assert data.classes == ("A", "a", "b")
    assert shades(data.train)[77] == 0


@pytest.mark.parametrize("flat", [False, True])
def test_a_class_without_an_image_is_refused(tmp_path, flat):
    parts = [""] if flat else ["train", "test"]
    for part in parts:
        for name in "ab":
            picture(tmp_path / part / name / "0.png")
        picture(tmp_path / part / "c/0.gif")
    with pytest.raises(DataNotFoundError, match=r"in the folder of every class, got none in 'c' \(1 of 3 classes\)"):
        load(tmp_path)


def test_a_folder_of_test_images_that_is_no_class_is_refused(root):
    picture(root / "test/c/0.png")
    with pytest.raises(
        ValueError, match=r"test: expected the classes of .*/train, got a folder 'c' that is none of th"
    ):
        load(root)


def test_a_class_may_lack_test_images(root):
    picture(root / "train/c/0.png", 99)
    assert shades(load(root).train) == EXPECTED | {99: 2}


def test_a_folder_that_may_not_be_read_is_no_empty_one(root, monkeypatch):
    scandir = os.scandir

    def refused(place):
        if str(place).endswith("deep"):
            raise PermissionError(13, "Permission denied", str(place))
        return scandir(place)

    picture(root / "train/a/deep/x.png")
    monkeypatch.setattr(os, "scandir", refused)
    with pytest.raises(PermissionError):
        load(root)


def test_a_class_whose_name_is_not_utf_8_is_refused(root):
    os.mkdir(os.fsencode(root / "train") + b"/\xff")
    with pytest.raises(ValueError, match=r"train: expected names of folders in UTF-8, got b'\\xff'"):
        load(root)

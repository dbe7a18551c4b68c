"""The cache of decoded images: each pixel as it was decoded, whatever is killed, and broken images named."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import signsym_core as ss
from signsym_core.datasets import BrokenImagesError, BrokenImageWarning, cachefill, decode, decoders
from signsym_core.datasets.decode import BrokenImageError, decoded, read
from signsym_core.datasets.mapped import Mapped
from signsym_core.datasets.marks import READY, believed
from signsym_core.datasets.pixels import Pixels


def tree(root, count=8, size=(20, 14)):
    """A class-folder tree of noise, PNG so that pixels are exact."""
    chance = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for at in range(count):
                noise = chance.integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
                Image.fromarray(noise).save(root / part / name / f"{at}.png")
    return root


def source(**parameters):
    return ss.DATASETS.build("imagefolder", **({"size": 12} | parameters))


def folder_of(root):
    (found,) = (root / ".signsym-cache").iterdir()
    return found


def states_of(root):
    """The state of each image, from the marks on disk."""
    marks, damaged = believed((folder_of(root) / "marks").read_bytes())
    assert damaged == 0
    return marks["state"]


def expected(root, part, index):
    files = sorted((root / part).rglob("*.png"))
    return torch.from_numpy(read(files[index], 12).copy()).permute(2, 0, 1)


def test_every_cached_image_is_the_decoded_file(tmp_path):
    for _ in range(2):
        data = source().load(tree(tmp_path) if not (tmp_path / "train").exists() else tmp_path)
        for part in ("train", "test"):
            split = getattr(data, part)
            for image, index in zip(split.images, split.indices.tolist(), strict=True):
                assert torch.equal(image, expected(tmp_path, part, index))


def test_nothing_is_decoded_twice(tmp_path, monkeypatch):
    tree(tmp_path)
    first = source().load(tmp_path)
    monkeypatch.setattr(decode, "decoded", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(source().load(tmp_path).train.images, first.train.images)
    with pytest.raises(BaseException, match="decoded again"):
        source(size=10).load(tmp_path)


def test_a_choice_decodes_only_what_it_needs_and_shares_the_file(tmp_path):
    tree(tmp_path)
    source(train_images=4, test_images=2).load(tmp_path)
    states = states_of(tmp_path)
    assert (states == READY).sum() == 6
    told = []
    source().load(tmp_path, progress=lambda done, total: told.append((done, total)))
    assert told == [(32, 32)]
    assert (states_of(tmp_path) == READY).all()


def test_a_file_that_is_replaced_is_decoded_anew(tmp_path):
    tree(tmp_path)
    source().load(tmp_path)
    Image.new("RGB", (20, 14), (1, 2, 3)).save(tmp_path / "train/a/0.png")
    data = source().load(tmp_path)
    assert data.train.images[data.train.indices.tolist().index(0), :, 0, 0].tolist() == [1, 2, 3]


def test_a_large_split_stays_in_its_file_and_gives_the_same_images(tmp_path, monkeypatch):
    tree(tmp_path)
    held = source().load(tmp_path).train
    monkeypatch.setenv("SIGNSYM_RESIDENT_BYTES", str(16 * 3 * 12 * 12 - 1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        split = source().load(tmp_path).to("cpu").train
    assert isinstance(split.images, Mapped)
    assert split.images.shape == held.images.shape
    at = torch.tensor([5, 0, 5, 15])
    mask = torch.arange(16) % 3 == 0
    for index in (at, mask, slice(2, 9, 3), slice(None), 7):
        assert torch.equal(split.images[index], held.images[index])
    assert torch.equal(split.take(at).images, held.take(at).images)
    assert torch.equal(split.images.take(at)[1:], held.images[at][1:])
    with pytest.raises(TypeError, match="indexed by image alone"):
        split.images[:, 0]


def test_changing_a_mapped_batch_does_not_change_the_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNSYM_RESIDENT_BYTES", "0")
    split = source().load(tree(tmp_path)).train
    before = split.images[:]
    split.images[3].zero_()
    split.images[:].zero_()
    assert torch.equal(source().load(tmp_path).train.images[:], before)


def test_a_setting_that_is_no_number_of_bytes_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNSYM_RESIDENT_BYTES", "4GB")
    with pytest.raises(ValueError, match="SIGNSYM_RESIDENT_BYTES expects a whole number of bytes, got '4GB'"):
        source().load(tree(tmp_path))


def start(root, log, monkeypatch):
    """Load the tree in a process of its own, slowly and in small chunks; each decoded file is a line of `log`."""

    def slow(data, file, side):
        time.sleep(0.02)
        with open(log, "a") as out:
            out.write(f"{file}\n")
        return decoded(data, file, side)

    with monkeypatch.context() as slowly:
        slowly.setattr(cachefill, "CHUNK", 2)
        slowly.setattr(decode, "decoded", slow)
        process = multiprocessing.get_context("fork").Process(target=lambda: source().load(root))
        process.start()
    return process


@pytest.mark.slow
@pytest.mark.parametrize("compressed", [False, True])
def test_after_kills_it_goes_on_and_several_processes_share_the_work(tmp_path, monkeypatch, compressed):
    monkeypatch.setenv("SIGNSYM_CACHE_COMPRESS", str(int(compressed)))
    root, log = tree(tmp_path / "one"), tmp_path / "log"
    files = [file for part in ("train", "test") for file in sorted((root / part).rglob("*.png"))]
    for count in (3, 9):
        process = start(root, log, monkeypatch)
        while not log.exists() or len(log.read_text().splitlines()) < count:
            time.sleep(0.002)
        process.kill()
        process.join()
        log.unlink()
        states = states_of(root)
        kept = Pixels(folder=folder_of(root), count=32, height=12, width=12, compressed=compressed).mapped()
        for at, image in zip(ready := np.flatnonzero(states == READY), kept.read(torch.tensor(ready)), strict=True):
            assert (image.numpy() == read(files[at], 12).transpose(2, 0, 1)).all()
    assert 2 <= (states == READY).sum() < 32
    several = [start(root, log, monkeypatch) for _ in range(3)]
    for process in several:
        process.join()
    assert [process.exitcode for process in several] == [0, 0, 0]
    assert sorted(log.read_text().splitlines()) == sorted(str(files[at]) for at in np.flatnonzero(states == 0))
    ours, undisturbed = (source().load(place).train.images for place in (root, tree(tmp_path / "other")))
    assert torch.equal(ours, undisturbed)


def test_a_data_root_that_cannot_be_written_uses_the_users_cache(tmp_path, monkeypatch):
    tree(tmp_path / "data")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    made = Path.mkdir

    def mkdir(path, *arguments, **options):
        if tmp_path / "data" in path.parents:
            raise OSError(30, "Read-only file system", str(path))
        made(path, *arguments, **options)

    monkeypatch.setattr(Path, "mkdir", mkdir)
    assert len(source().load(tmp_path / "data").train) == 16
    assert list((tmp_path / "home/signsym").iterdir())
    assert not (tmp_path / "data/.signsym-cache").exists()


def test_the_cache_lies_where_the_machine_says(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNSYM_CACHE", str(tmp_path / "fast"))
    source().load(tree(tmp_path / "data"))
    assert list((tmp_path / "fast").iterdir())
    assert not (tmp_path / "data/.signsym-cache").exists()


def test_a_full_disk_loses_nothing_that_was_done(tmp_path, monkeypatch):
    tree(tmp_path)
    monkeypatch.setattr(cachefill, "CHUNK", 8)
    write, written = os.pwrite, []

    def full(descriptor, content, offset):
        if len(written) > 12:
            raise OSError(28, "No space left on device")
        written.append(offset)
        return write(descriptor, content, offset)

    monkeypatch.setattr(os, "pwrite", full)
    with pytest.raises(OSError, match="No space left"):
        source().load(tmp_path)
    monkeypatch.setattr(os, "pwrite", write)
    states = states_of(tmp_path)
    assert 0 < (states == READY).sum() < 32
    assert torch.equal(
        source().load(tmp_path).test.images[0],
        expected(tmp_path, "test", *source().load(tmp_path).test.indices[:1].tolist()),
    )


def spoil(root):
    """Three broken files of three kinds."""
    whole = root / "train/a/0.png"
    Image.effect_noise((90, 90), 50).save(root / "train/a/cut.jpg")
    data = (root / "train/a/cut.jpg").read_bytes()
    (root / "train/a/cut.jpg").write_bytes(data[: len(data) // 2])
    (root / "train/b/text.png").write_text("no image")
    (root / "test/b/short.png").write_bytes(whole.read_bytes()[:-60])
    return root


def test_broken_images_are_named_and_counted_and_stop_the_run(tmp_path):
    spoil(tree(tmp_path))
    for _ in range(2):
        with pytest.raises(BrokenImagesError) as error:
            source().load(tmp_path)
        message = str(error.value)
        assert "3 broken images (2 of 18 in train, 1 of 17 in test)" in message
        for name in ("train/a/cut.jpg", "train/b/text.png", "test/b/short.png", "truncated", "'broken' to skip"):
            assert name in message


def test_broken_images_leave_their_split_where_the_user_says_so(tmp_path):
    whole = source().load(tree(tmp_path))
    numbers = {part: len(getattr(whole, part)) for part in ("train", "test")}
    with pytest.warns(BrokenImageWarning, match=r"3 broken images.*They are left out"):
        data = source(broken="skip").load(spoil(tmp_path))
    assert {part: len(getattr(data, part)) for part in numbers} == numbers
    assert torch.bincount(data.train.labels).tolist() == [8, 8]


def test_a_split_of_broken_images_alone_stops_the_run(tmp_path):
    tree(tmp_path, count=1)
    for file in (tmp_path / "test").rglob("*.png"):
        file.write_text("no image")
    with pytest.raises(BrokenImagesError, match="None is left in test"):
        source(broken="skip").load(tmp_path)


def test_an_image_that_may_not_be_read_is_not_called_broken(tmp_path, monkeypatch):
    tree(tmp_path)

    def refused(file, side):
        raise OSError(5, "Input/output error", str(file))

    monkeypatch.setattr(decode, "content", refused)
    with pytest.raises(OSError, match="Input/output error"):
        source(broken="skip").load(tmp_path)
    assert not states_of(tmp_path).any()


@pytest.fixture
def processes(monkeypatch):
    """Files are worth two processes from the second on."""
    monkeypatch.setattr(decoders, "WORTH", 1)
    monkeypatch.setattr(decoders, "MESSAGE", 3)
    monkeypatch.setattr(decoders, "cores", lambda: 2)


@pytest.mark.slow
@pytest.mark.usefixtures("processes")
def test_processes_read_the_same_images_in_the_same_order(tmp_path, monkeypatch):
    spoil(tree(tmp_path))
    files = [str(file) for file in sorted(tmp_path.rglob("*.png"))]
    with decoders.Decoders(len(files)) as several:
        extents, contents = list(several.extents(files)), list(several.contents(files, 12))
    assert extents == [decode.extent(Path(file)) for file in files]
    assert contents == [decode.content(Path(file), 12) for file in files]
    # The parent process has nothing to do with it.
    monkeypatch.setattr(decode, "answer", lambda *_: pytest.fail("read here"))
    with pytest.raises(BrokenImagesError, match=r"short\.png cannot be decoded: "):
        source().load(tmp_path)


@pytest.mark.usefixtures("processes")
def test_a_file_that_processes_cannot_read_is_an_error_of_the_system(tmp_path):
    files = [str(tmp_path / "none.png")] * 8
    with decoders.Decoders(8) as several, pytest.raises(FileNotFoundError, match=r"none\.png"):
        list(several.contents(files, None))


@pytest.mark.usefixtures("processes")
def test_a_process_that_dies_is_said_and_no_process_is_left(tmp_path):
    files = [str(file) for file in sorted(tree(tmp_path).rglob("*.png"))]
    with decoders.Decoders(len(files)) as several:
        processes = several._processes
        for process in processes:
            process.kill()
        with pytest.raises(OSError, match="process that decodes images ended"):
            list(several.extents(files))
    assert [process.returncode for process in processes] == [-9, -9]


def test_half_a_line_that_a_kill_left_hides_no_reason(tmp_path):
    spoil(tree(tmp_path))
    with pytest.raises(BrokenImagesError):
        source(train_images=18, test_images=2).load(tmp_path)
    with open(folder_of(tmp_path) / "broken.jsonl", "a") as file:
        file.write('{"image": 3')
    with pytest.raises(BrokenImagesError, match=r"short\.png cannot be decoded: "):
        source().load(tmp_path)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P", "1", "LA", "CMYK", "YCbCr"])
def test_every_mode_becomes_rgb(tmp_path, mode):
    suffix = {"CMYK": "jpg", "YCbCr": "jpg"}.get(mode, "png")
    Image.new("RGB", (16, 12), (255, 255, 255)).convert(mode).save(tmp_path / f"x.{suffix}")
    pixels = read(tmp_path / f"x.{suffix}", None)
    assert (pixels.shape, pixels.dtype) == ((12, 16, 3), np.uint8)
    assert pixels.min() >= 250


def test_16_bit_grey_keeps_its_range(tmp_path):
    values = np.array([[0, 128, 129, 257, 32768, 65535]], dtype=np.uint16)
    for name in ("x.png", "x.tif"):
        Image.fromarray(values).save(tmp_path / name)
        assert read(tmp_path / name, None)[0].tolist() == [[v] * 3 for v in (0, 0, 1, 1, 128, 255)]


def test_an_image_without_a_fixed_range_is_refused(tmp_path):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "x.tif")
    with pytest.raises(BrokenImageError, match="mode F, which has no fixed range"):
        read(tmp_path / "x.tif", None)


def test_an_orientation_tag_is_ignored(tmp_path):
    image = Image.new("RGB", (16, 8), (200, 0, 0))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "x.jpg", exif=exif)
    assert read(tmp_path / "x.jpg", None).shape == (8, 16, 3)


def test_images_are_kept_no_larger_than_they_are(tmp_path):
    data = source(size=64).load(tree(tmp_path, size=(16, 16)))
    assert data.train.images.shape == (16, 3, 16, 16)
    assert json.loads((folder_of(tmp_path) / "index.json").read_text())["height"] == 16

"""Damage to the cache of decoded images: noticed at the first reading, mended from the files, and said."""

from __future__ import annotations

import os
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

import signsym_core as ss
from signsym_core.datasets import BrokenImagesError, DataWarning
from signsym_core.datasets import cache as caching
from signsym_core.datasets.cache import CacheDamageWarning, ChangedFileError
from signsym_core.datasets.marks import MARK, READY, believed, mark

COUNT = 12


@pytest.fixture(params=["resident", "mapped"])
def root(tmp_path, request, monkeypatch):
    """Twelve noisy images, decoded; splits of them are held in memory or mapped."""
    chance = np.random.default_rng(0)
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            for at in range(3):
                noise = chance.integers(0, 256, (14, 20, 3), dtype=np.uint8)
                Image.fromarray(noise).save(tmp_path / part / name / f"{at}.png")
    if request.param == "mapped":
        monkeypatch.setenv("SIGNSYM_RESIDENT_BYTES", "0")
    load(tmp_path)
    return tmp_path


def load(root):
    """Every image of the data set as a run reads it."""
    data = ss.DATASETS.build("imagefolder", size=12).load(root)
    return torch.cat([data.train.images[:], data.test.images[:]]), torch.cat([data.train.digests, data.test.digests])


def folder_of(root):
    (folder,) = (root / ".signsym-cache").iterdir()
    return folder


def silent(root):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return load(root)


def flip(file, bit):
    content = bytearray(file.read_bytes())
    content[bit // 8 % len(content)] ^= 1 << bit % 8
    file.write_bytes(content)


def test_one_flipped_bit_anywhere_in_the_pixels_is_mended_and_said(root):
    images, digests = silent(root)
    size = folder_of(root).joinpath("pixels").stat().st_size
    for bit in np.random.default_rng(1).integers(0, 8 * size, 20).tolist():
        flip(folder_of(root) / "pixels", bit)
        with pytest.warns(CacheDamageWarning, match=r"1 of 12 decoded images are damaged \(t\w+/[ab]/\d\.png first\)"):
            again = load(root)
        assert torch.equal(again[0], images)
        assert torch.equal(again[1], digests)
        assert torch.equal(silent(root)[0], images)


@pytest.mark.slow
def test_one_flipped_bit_anywhere_in_the_marks_is_mended_and_said(root):
    images, digests = silent(root)
    for bit in range(0, 8 * COUNT * MARK.itemsize, 37):
        flip(folder_of(root) / "marks", bit)
        with pytest.warns(CacheDamageWarning, match="1 of 12 images have damaged marks"):
            again = load(root)
        assert torch.equal(again[0], images)
        assert torch.equal(again[1], digests)
        silent(root)


def test_one_flipped_bit_anywhere_in_the_index_is_mended_and_said(root):
    images, _ = silent(root)
    index = folder_of(root) / "index.json"
    for bit in range(0, 8 * index.stat().st_size, 101):
        flip(index, bit)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            assert torch.equal(load(root)[0], images)
        # A blank between two values is no damage.
        assert [w.category for w in caught] in ([CacheDamageWarning], []), bit
        silent(root)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["pixels", "marks"])
@pytest.mark.parametrize("change", ["cut", "longer", "empty", "other", "gone"])
def test_files_that_are_not_the_caches_are_mended_and_said(root, name, change):
    images, digests = silent(root)
    file = folder_of(root) / name
    content = file.read_bytes()
    other = np.random.default_rng(3).bytes(len(content))
    changed = {"cut": content[:-100], "longer": content + b"x", "empty": b"", "other": other}
    file.write_bytes(changed[change]) if change in changed else file.unlink()
    with pytest.warns(CacheDamageWarning):
        again = load(root)
    assert torch.equal(again[0], images)
    assert torch.equal(again[1], digests)
    silent(root)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"null", b"\xff", b'{"images": 12, "height": 13, "width": 13}'])
def test_an_index_that_is_not_of_this_version_is_written_anew(root, content):
    images, _ = silent(root)
    (folder_of(root) / "index.json").write_bytes(content)
    with pytest.warns(CacheDamageWarning, match=r"index\.json is damaged"):
        assert torch.equal(load(root)[0], images)
    silent(root)


def test_without_the_check_damage_would_pass(root, monkeypatch):
    images, _ = silent(root)
    flip(folder_of(root) / "pixels", 4321)
    monkeypatch.setattr(caching, "differing", lambda *_: [])
    assert not torch.equal(silent(root)[0], images)


def test_what_was_looked_at_once_is_not_looked_at_again(root, monkeypatch):
    data = ss.DATASETS.build("imagefolder", size=12).load(root)
    images, seen = data.train.images, []
    first = images[:]
    check = caching.differing
    monkeypatch.setattr(caching, "differing", lambda some, sums: seen.append(len(some)) or check(some, sums))
    for _ in range(3):
        assert torch.equal(images[:], first)
    assert not seen


def test_a_file_that_changed_under_the_same_size_and_time_is_refused_where_it_would_mend(root):
    file = root / "train/a/0.png"
    stat, content = file.stat(), file.read_bytes()
    file.write_bytes(content[:-20] + bytes(8) + content[-12:])
    os.utime(file, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    # Nothing reads the file: what was decoded stands.
    silent(root)
    flip(folder_of(root) / "pixels", 99)
    with pytest.warns(CacheDamageWarning), pytest.raises((ChangedFileError, BrokenImagesError), match=r"a/0\.png"):
        load(root)


def test_a_file_that_is_replaced_while_it_is_listed_is_refused(root, monkeypatch):
    survey = caching.Survey

    def stale(**fields):
        return survey(**fields | {"times": fields["times"] + 1})

    monkeypatch.setattr("signsym_core.datasets.survey.Survey", stale)
    with pytest.raises(ChangedFileError, match=r"train/a/0\.png: expected the file as it was listed"):
        load(root)


def test_a_broken_image_without_its_reason_is_tried_again(root):
    (root / "train/a/9.png").write_bytes(b"no image")
    with pytest.raises(BrokenImagesError):
        load(root)
    for folder in (root / ".signsym-cache").iterdir():
        folder.joinpath("broken.jsonl").unlink(missing_ok=True)
    with pytest.raises(BrokenImagesError, match=r"9\.png cannot be decoded: expected JPEG, PNG, BMP"):
        load(root)


def test_a_cache_whose_files_are_no_files_is_never_opened(root):
    file = folder_of(root) / "pixels"
    file.unlink()
    os.mkfifo(file)
    with pytest.raises(ValueError, match="expected a regular file pixels; delete the folder"):
        load(root)


def test_marks_tell_their_own_position():
    one = b"".join(mark(at, READY, bytes(range(at, at + 16)), bytes([at])) for at in range(3))
    assert believed(one)[1] == 0
    moved = one[28:56] + one[:28] + one[56:]
    assert believed(moved)[1] == 2
    assert issubclass(CacheDamageWarning, DataWarning)


def test_damage_in_a_cache_that_cannot_be_written_names_the_remedy(root):
    folder = folder_of(root)
    flip(folder / "pixels", 5)
    (folder / "lock").unlink()
    # A folder cannot be opened for writing, by no user.
    (folder / "lock").mkdir()
    words = rf"cache {folder} cannot be written \(Is a directory\).*damaged: make it writable, or .*SIGNSYM_CACHE"
    with pytest.warns(CacheDamageWarning), pytest.raises(OSError, match=words):
        load(root)

"""A compressed cache of decoded images: the same pixels in less room, whatever is damaged."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import signsym_core as ss
from signsym_core.datasets.cache import CacheDamageWarning
from signsym_core.datasets.cachefolder import index_of
from signsym_core.datasets.files import BrokenImagesError
from signsym_core.datasets.pixels import HEAD, PAGE, Pixels, packed, unpacked

SIDE = 128


@pytest.fixture(params=["resident", "mapped"])
def root(tmp_path, request, monkeypatch):
    """Ten pieces of two photographs, and one image of noise."""
    monkeypatch.setenv("SIGNSYM_CACHE_COMPRESS", "1")
    if request.param == "mapped":
        monkeypatch.setenv("SIGNSYM_RESIDENT_BYTES", "0")
    noise = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)
    pieces = [
        photo[128 : 128 + SIDE, at : at + SIDE] for photo in load_sample_images().images for at in range(0, 500, 100)
    ]
    for at, piece in enumerate([*pieces, noise]):
        file = tmp_path / ("train", "test")[at % 2] / "ab"[at // 2 % 2] / f"{at}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(piece).save(file)
    return tmp_path


def load(root, **options):
    data = ss.DATASETS.build("imagefolder", size=SIDE).load(root, **options)
    return torch.cat([data.train.images[:], data.test.images[:]])


def folder_of(root):
    (folder,) = (root / ".signsym-cache").iterdir()
    return folder


def flip(file, bit):
    with open(file, "r+b") as out:
        out.seek(bit // 8)
        byte = out.read(1)[0]
        out.seek(bit // 8)
        out.write(bytes([byte ^ 1 << bit % 8]))


def test_the_pixels_are_those_of_a_plain_cache_in_less_room(root, monkeypatch, tmp_path):
    images = load(root)
    # Each image is read again from the disk.
    assert torch.equal(load(root), images)
    monkeypatch.setenv("SIGNSYM_CACHE_COMPRESS", "0")
    monkeypatch.setenv("SIGNSYM_CACHE", str(tmp_path / "plain"))
    assert torch.equal(load(root), images)
    (plain,) = (tmp_path / "plain").iterdir()
    assert {file.name for file in plain.iterdir()} == {"index.json", "marks", "pixels", "lock"}
    assert {file.name for file in folder_of(root).iterdir()} == {"index.json", "marks", "packed", "lock"}
    sizes = {name: (folder / name).stat() for folder, name in ((folder_of(root), "packed"), (plain, "pixels"))}
    assert sizes["packed"].st_blocks < 0.7 * sizes["pixels"].st_blocks
    assert sizes["packed"].st_size >= sizes["pixels"].st_size


def test_what_is_there_is_used_as_it_is(root, monkeypatch):
    images = load(root)
    # A new file makes another cache.
    (root / "train/a/new.png").write_bytes((root / "train/a/0.png").read_bytes())
    monkeypatch.setenv("SIGNSYM_CACHE_COMPRESS", "0")
    with_new = load(root)
    kinds = sorted(file.name for folder in (root / ".signsym-cache").iterdir() for file in folder.glob("p*"))
    assert kinds == ["packed", "pixels"]
    assert len(with_new) == len(images) + 1
    with pytest.raises(ValueError, match="exists and is not compressed: delete it"):
        load(root, compress=True)
    monkeypatch.setenv("SIGNSYM_CACHE_COMPRESS", "1")
    assert torch.equal(load(root), with_new)
    monkeypatch.setenv("SIGNSYM_CACHE_COMPRESS", "yes")
    with pytest.raises(ValueError, match="SIGNSYM_CACHE_COMPRESS expects 1 or 0, got 'yes'"):
        load(root)


def test_a_new_cache_is_like_those_of_the_data_set_beside_it(root, monkeypatch):
    monkeypatch.delenv("SIGNSYM_CACHE_COMPRESS")
    load(root)
    assert (folder_of(root) / "pixels").exists()
    for file in folder_of(root).iterdir():
        file.unlink()
    load(root, compress=True)
    (root / "train/a/new.png").write_bytes((root / "train/a/0.png").read_bytes())
    load(root)
    kinds = [file.name for folder in (root / ".signsym-cache").iterdir() for file in folder.glob("p*")]
    assert kinds == ["packed", "packed"]


def test_one_flipped_bit_in_any_stream_is_mended_and_said(root):
    images = load(root)
    file = folder_of(root) / "packed"
    content = file.read_bytes()
    slot = Pixels(folder=root, count=11, height=SIDE, width=SIDE, compressed=True).slot
    chance = np.random.default_rng(1)
    for at in range(11):
        length = int.from_bytes(content[at * slot : at * slot + HEAD], "little")
        # One in the length, or in the stream.
        flip(file, 8 * at * slot + int(chance.integers(0, 8 * (length + HEAD)) if at else 3))
    with pytest.warns(CacheDamageWarning, match=r"of 11 decoded images are damaged"):
        assert torch.equal(load(root), images)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(load(root), images)
    assert file.read_bytes() == content


def test_damage_after_the_first_reading_is_mended_too(root, monkeypatch):
    monkeypatch.setenv("SIGNSYM_RESIDENT_BYTES", "0")
    images = ss.DATASETS.build("imagefolder", size=SIDE).load(root).train.images
    first = images[:]
    with open(folder_of(root) / "packed", "r+b") as out:
        out.seek(HEAD + 40)
        out.write(bytes(400))
    with pytest.warns(CacheDamageWarning):
        assert torch.equal(images[:], first)


@pytest.mark.parametrize("change", ["cut", "gone"])
def test_a_file_that_is_not_whole_is_mended_and_said(root, change):
    images = load(root)
    file = folder_of(root) / "packed"
    file.write_bytes(file.read_bytes()[:PAGE]) if change == "cut" else file.unlink()
    with pytest.warns(CacheDamageWarning):
        assert torch.equal(load(root), images)
    assert file.exists()


def test_a_damaged_index_of_a_compressed_cache_stays_compressed(root, monkeypatch):
    images = load(root)
    (folder_of(root) / "index.json").write_text("{}")
    monkeypatch.delenv("SIGNSYM_CACHE_COMPRESS")
    with pytest.warns(CacheDamageWarning, match=r"index\.json is damaged"):
        assert torch.equal(load(root), images)
    assert isinstance(index_of(folder_of(root), 11), dict)
    assert not (folder_of(root) / "pixels").exists()


def test_a_broken_image_is_named_as_in_a_plain_cache(root):
    (root / "train/a/9.png").write_bytes(b"no image")
    with pytest.raises(BrokenImagesError, match=r"9\.png cannot be decoded: expected JPEG, PNG, BMP"):
        load(root)


def test_a_side_too_long_for_a_stream_is_refused(tmp_path, monkeypatch):
    monkeypatch.setenv("SIGNSYM_CACHE_COMPRESS", "1")
    for part in ("train", "test"):
        for name in ("a", "b"):
            (tmp_path / part / name).mkdir(parents=True)
            Image.new("RGB", (2**14, 2)).save(tmp_path / part / name / "0.png")
    with pytest.raises(
        ValueError, match=r"expected at most 16,383 pixels a side where they are compressed, got 2 x 16"
    ):
        ss.DATASETS.build("imagefolder").load(tmp_path)


@pytest.mark.parametrize("shape", [(3, 1, 1), (3, 5, 2), (3, 64, 64)])
def test_a_stream_that_is_no_smaller_is_not_used(shape, tmp_path):
    _, height, width = shape
    pixels = Pixels(folder=tmp_path, count=1, height=height, width=width, compressed=True)
    noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    for image in (noise, np.zeros_like(noise)):
        stored = pixels.stored(image.tobytes())
        assert len(stored) <= HEAD + image.size <= pixels.slot
        slot = np.frombuffer(stored.ljust(pixels.slot, b"\0"), dtype=np.uint8)
        assert np.array_equal(unpacked(slot, shape), image)
    assert pixels.stored(noise.tobytes())[HEAD:] == noise.tobytes()
    # A stream of another image, or none at all, is no image of this cache.
    other = packed(bytes(3 * 8 * 8), (3, 8, 8))
    for wrong in (other, b"RIFF", b""):
        content = len(wrong).to_bytes(HEAD, "little") + wrong
        assert unpacked(np.frombuffer(content.ljust(pixels.slot, b"\0"), dtype=np.uint8), shape) is None


def test_a_stream_as_long_as_the_pixels_is_not_used(tmp_path, monkeypatch):
    monkeypatch.setattr("signsym_core.datasets.pixels.packed", lambda pixels, shape: bytes(len(pixels)))
    image = np.arange(1, 3 * 8 * 8 + 1, dtype=np.uint8).reshape(3, 8, 8)
    stored = Pixels(folder=tmp_path, count=1, height=8, width=8, compressed=True).stored(image.tobytes())
    assert np.array_equal(unpacked(np.frombuffer(stored, dtype=np.uint8), image.shape), image)


def test_any_bit_of_a_header_may_be_wrong():
    """One of these bits says that there is an alpha channel."""
    content = packed(np.random.default_rng(0).integers(0, 9, 3 * 24 * 16, dtype=np.uint8).tobytes(), (3, 24, 16))
    for bit in range(8 * 40):
        damaged = bytearray(content)
        damaged[bit // 8] ^= 1 << bit % 8
        slot = np.frombuffer(len(content).to_bytes(HEAD, "little") + bytes(damaged), dtype=np.uint8)
        pixels = unpacked(slot, (3, 24, 16))
        assert pixels is None or pixels.shape == (3, 24, 16), bit

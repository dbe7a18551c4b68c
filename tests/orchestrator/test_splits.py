"""Fingerprints of data sets: kept with the first job of a store and held against what every later job loads."""

from __future__ import annotations

import dataclasses
import os
import shutil
import threading
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

import signsym_core as ss
from orchestrator.commands.cli import main
from orchestrator.gridfile.grid import load as load_grid
from orchestrator.jobs import keys
from orchestrator.jobs.job import JobContext
from orchestrator.plan.compile import compile_plan
from orchestrator.store import Store, fingerprints, tables
from orchestrator.work import execute
from orchestrator.work.data import data_set
from signsym_core.datasets import DataWarning

SOURCE = ss.DATASETS.build("digits", split="20/10/rest")
DESCRIBED = keys.described(SOURCE)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return SOURCE.load(tmp_path_factory.mktemp("nothing"))


@pytest.fixture
def kept(tmp_path, data):
    store = Store(str(tmp_path / "store"))
    fingerprints.keep(store, DESCRIBED, data)
    (name,) = store.names("splits", ".parquet")
    return store, data, f"splits/{name}"


def with_test(data, **fields):
    return dataclasses.replace(data, test=dataclasses.replace(data.test, **fields))


def test_every_split_is_kept_in_its_order(kept):
    store, data, path = kept
    recorded = fingerprints.load(store, path)
    assert recorded.classes == data.classes
    for name, images in recorded.splits.items():
        split = getattr(data, name)
        assert images.numbers.tolist() == split.indices.tolist()
        assert images.labels_of(np.arange(len(images))) == [[label] for label in split.labels.tolist()]
    # 20 and 10 of ten classes, and the rest: each of the 1,797 images once.
    assert {name: len(images) for name, images in recorded.splits.items()} == {
        "train": 200,
        "test": 100,
        "database": 1497,
    }
    assert np.array_equal(np.sort(np.concatenate([i.numbers for i in recorded.splits.values()])), np.arange(1797))


def test_the_same_images_again_change_nothing(kept, monkeypatch):
    store, data, _ = kept
    monkeypatch.setattr(store, "write", None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fingerprints.keep(store, DESCRIBED, data)
        fingerprints.compare(store, DESCRIBED, data)


def swapped(tensor):
    """Rows 3 and 60 in each other's place."""
    order = torch.arange(len(tensor))
    order[[3, 60]] = order[[60, 3]]
    return tensor[order]


def one_bit(images):
    images = images.clone()
    images[5, 0, 2, 2] ^= 1
    return images


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda d: with_test(d, images=one_bit(d.test.images)), "test: 1 of 100 images are other images: number {5}"),
        (lambda d: with_test(d, images=swapped(d.test.images)), "2 of 100 images have changed places: number {3}"),
        (lambda d: with_test(d, labels=swapped(d.test.labels)), r"test: 2 labels changed \(image {3}: expected \w"),
        (lambda d: with_test(d, indices=swapped(d.test.indices)), "expected 100 images, got 100, in another order"),
        (lambda d: dataclasses.replace(d, test=d.test.take(torch.arange(99))), "got 99, 1 missing, 0 new"),
        (lambda d: with_test(d, indices=d.test.indices + 5000), "got 100, 100 missing, 100 new"),
        (lambda d: dataclasses.replace(d, database=None), "database: expected 1,497 images, got no such split"),
        (lambda d: dataclasses.replace(d, classes=d.classes[::-1]), "the classes have another order .class 0: expect"),
        (lambda d: dataclasses.replace(d, classes=("zero", *d.classes[1:])), "class 0: expected '0', got 'zero'"),
        (lambda d: dataclasses.replace(d, classes=d.classes[:9]), "expected 10 classes, got 9"),
    ],
)
def test_a_data_set_that_is_another_is_refused_in_words(kept, change, words):
    store, data, path = kept
    for at in (3, 5):
        words = words.replace(f"{{{at}}}", str(int(data.test.indices[at])))
    for hold in (fingerprints.keep, fingerprints.compare):
        with pytest.raises(fingerprints.OtherImagesError, match=words) as error:
            hold(store, DESCRIBED, change(data))
        assert path in str(error.value)
        assert "Restore the files, or use another --storage" in str(error.value)
    assert store.names("splits", ".parquet") == [path.removeprefix("splits/")]


def test_labels_of_several_classes_are_part_of_it(tmp_path, data):
    several = dataclasses.replace(
        data,
        **{
            name: dataclasses.replace(getattr(data, name), labels=torch.eye(10, dtype=torch.uint8)[split.labels])
            for name, split in (("train", data.train), ("test", data.test), ("database", data.database))
        },
    )
    store = Store(str(tmp_path / "store"))
    fingerprints.keep(store, DESCRIBED, several)
    fingerprints.keep(store, DESCRIBED, several)
    labels = several.test.labels.clone()
    labels[7] = 0
    labels[7, [2, 4]] = 1
    with pytest.raises(fingerprints.OtherImagesError, match=r"1 labels changed \(image \d+: expected \d, got 2, 4\)"):
        fingerprints.keep(store, DESCRIBED, with_test(several, labels=labels))


@pytest.mark.parametrize("at", [0.1, 0.5, 0.9])
def test_a_damaged_record_is_said_to_be_damaged_and_never_believed(kept, at):
    store, data, path = kept
    file = store.folder / path
    content = bytearray(file.read_bytes())
    content[int(at * len(content))] ^= 4
    file.write_bytes(content)
    with pytest.raises(fingerprints.OtherImagesError, match="record is damaged"):
        fingerprints.keep(store, DESCRIBED, with_test(data, images=one_bit(data.test.images)))


def older(store, data):
    """Turn the store into one that has the numbers of its images and nothing else."""
    shutil.rmtree(store.folder / "splits")
    parts = {"train": data.train, "test": data.test, "database": data.database}
    names = np.repeat(list(parts), [len(split) for split in parts.values()])
    columns = [pa.array(names, pa.string()), torch.cat([split.indices for split in parts.values()]).numpy()]
    (store.folder / "splits").mkdir()
    path = f"splits/{keys.key(DESCRIBED)}.parquet"
    pq.write_table(pa.Table.from_arrays(columns, schema=tables.SPLITS), store.folder / path)
    return path


def test_an_older_store_gets_its_fingerprint_at_first_use_and_says_so_once(kept):
    store, data, path = kept
    older(store, data)
    with pytest.warns(DataWarning, match="was begun before fingerprints of data were kept"):
        fingerprints.keep(store, DESCRIBED, data)
    assert store.exists([path])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fingerprints.keep(store, DESCRIBED, data)


def test_an_older_store_refuses_other_numbers_of_images(kept):
    store, data, _ = kept
    path = older(store, data)
    fewer = dataclasses.replace(data, test=data.test.take(torch.arange(99)))
    for hold in (fingerprints.keep, fingerprints.compare):
        with pytest.raises(
            fingerprints.OtherImagesError, match=r"test split held 100 images \(.*\), now it holds 99, 0 of"
        ):
            hold(store, DESCRIBED, fewer)
    assert store.names("splits", ".parquet") == [path.removeprefix("splits/")]


def test_two_that_record_the_same_at_once_agree(tmp_path, data):
    barrier, errors = threading.Barrier(4), []

    def record():
        store = Store(str(tmp_path / "store"))
        barrier.wait()
        try:
            fingerprints.keep(store, DESCRIBED, data)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=record) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert len(Store(str(tmp_path / "store")).names("splits", ".parquet")) == 1


def test_of_two_that_record_different_data_at_once_not_both_go_on(tmp_path, data, monkeypatch):
    store, other = Store(str(tmp_path / "store")), with_test(data, images=one_bit(data.test.images))
    write = store.write

    def late(path, content):
        # Between this node's look and its writing another node records.
        fingerprints.keep(Store(store.uri), DESCRIBED, other)
        write(path, content)

    monkeypatch.setattr(store, "write", late)
    with pytest.raises(fingerprints.OtherImagesError, match="1 of 100 images are other images"):
        fingerprints.keep(store, DESCRIBED, data)
    fingerprints.keep(Store(store.uri), DESCRIBED, other)


# Image files, through jobs

GRID = """
name: folders
seeds: [0]
experiments:
  - task: classification
    dataset: {name: imagefolder, size: 8, path: photos}
    backbone: {name: smallcnn, width: 4}
    weights: null
    rule: [usf]
    finetune: {epochs: 1}
    attacks:
      - {name: fgsm, gradient: [feedback], epsilon: 0.1}
"""


def photo(file, shade):
    file.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((8, 8, 3), shade, dtype=np.uint8)).save(file)


@pytest.fixture
def tuned(tmp_path):
    """A store whose fine-tune is done, the attack job that follows, and its context."""
    for part in ("train", "test"):
        for shift, name in enumerate(("a_light", "b_dark", "c_grey")):
            for at in range(4):
                photo(tmp_path / "photos" / part / name / f"{at}.png", 7 * (at + 4 * shift) + (part == "test"))
    (tmp_path / "grid.yaml").write_text(GRID)
    plan = compile_plan(load_grid(tmp_path / "grid.yaml"), set(), set())
    context = JobContext(storage=str(tmp_path / "store"), data_root=str(tmp_path), git="", versions="{}")
    (tune,) = [job for job in plan.jobs.values() if job.kind == "finetune"]
    (attack,) = [job for job in plan.jobs.values() if "attack" in job.spec and job.spec["attack"]["name"] == "fgsm"]
    data_set.cache_clear()
    execute.execute(tune.key, dict(tune.spec), context)
    # Another worker, on another day.
    data_set.cache_clear()
    yield tmp_path / "photos", context, tune, attack
    data_set.cache_clear()


def test_data_that_did_not_change_is_attacked(tuned):
    photos, context, _, attack = tuned
    # Decoded again, from files with another time of change: their bytes are what counts.
    shutil.rmtree(photos.parent / ".signsym-cache")
    for file in photos.rglob("*.png"):
        os.utime(file, ns=(1, 1))
    execute.execute(attack.key, dict(attack.spec), context)
    assert len(Store(context.storage).results()) == 1


def rename_class(photos):
    for part in ("train", "test"):
        (photos / part / "b_dark").rename(photos / part / "z_dark")


def exchange(photos):
    one, other = photos / "test/a_light/0.png", photos / "test/b_dark/0.png"
    first = one.read_bytes()
    one.write_bytes(other.read_bytes())
    other.write_bytes(first)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "words"),
    [
        (rename_class, "classes have (other names|another order).*class 1: expected 'b_dark', got 'c_grey'"),
        (lambda p: photo(p / "test/c_grey/2.png", 9), r"test: 1 of 12 images are other images: .*test/c_grey/2\.png"),
        (exchange, r"test: 2 of 12 images have changed places: .*a_light/0\.png"),
        (lambda p: photo(p / "train/a_light/1.png", 9), r"train: 1 of 12 images are other images: .*a_light/1\.png"),
        (lambda p: (p / "test/c_grey/3.png").unlink(), "expected 12 images, got 11, 1 missing, 0 new"),
        (lambda p: photo(p / "train/a_light/9.png", 9), "expected 12 images, got 13, 0 missing, 1 new"),
    ],
)
def test_jobs_on_changed_files_fail_before_anything_is_stored(tuned, change, words):
    photos, context, tune, attack = tuned
    store = Store(context.storage)
    before = sorted(store.folder.rglob("*"))
    change(photos)
    with pytest.raises(fingerprints.OtherImagesError, match=words):
        execute.execute(attack.key, dict(attack.spec), context)
    again = dict(tune.spec) | {"seed": 1}
    with pytest.raises(fingerprints.OtherImagesError, match=words):
        execute.execute(keys.key(again), again, context)
    with pytest.raises(fingerprints.OtherImagesError, match=words):
        data_set(keys.canonical(tune.spec["dataset"]), str(photos.parent), store.uri, records=False)
    assert sorted(store.folder.rglob("*")) == before


def test_a_model_of_a_store_that_is_attacked_by_hand_needs_the_stores_data(tuned, tmp_path, capsys):
    photos, _, tune, _ = tuned
    weights = tmp_path / "store/models" / tune.key / "model.safetensors"
    words = ["attack", "--backbone", "{name: smallcnn, width: 4}", "--rule", "usf", "--data-root", photos.parent]
    words += ["--dataset", "{name: imagefolder, size: 8, path: photos}", "--attack", "fgsm", "--epsilon", "0.1"]
    words += ["--weights", weights]
    assert main([str(word) for word in words]) == 0
    exchange(photos)
    assert main([str(word) for word in words]) == 2
    assert "2 of 12 images have changed places" in capsys.readouterr().err.replace("\n", " ")
    # The same file anywhere else comes from no store.
    copy = tmp_path / "mine.safetensors"
    shutil.copy(weights, copy)
    words[-1] = copy
    assert main([str(word) for word in words]) == 0


def test_the_check_can_fail(tuned, monkeypatch):
    """Without fingerprints the attack on renamed classes goes through: what this module tests is what stops it."""
    photos, context, _, attack = tuned
    rename_class(photos)
    monkeypatch.setattr(fingerprints, "keep", lambda *_: None)
    execute.execute(attack.key, dict(attack.spec), context)
    assert len(Store(context.storage).results()) == 1

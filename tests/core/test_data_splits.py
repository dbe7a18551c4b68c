"""Fixed draws and nested choices, for one label and for several per image."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

import signsym_core as ss
from signsym_core.datasets import Data, Split
from signsym_core.datasets.choice import draw, nested
from signsym_core.datasets.fingerprint import fingerprint

#: The first queries of the digits under 100/20/rest: stored results rest on this draw.
GOLDEN_QUERIES = [0, 11, 21, 24, 25, 50, 52, 54]


def load(**parameters):
    return ss.DATASETS.build("digits", **parameters).load(Path())


def sets(data):
    return [set(split.indices.tolist()) for split in (data.train, data.test, data.database)]


def test_of_each_class_so_many_train_and_ask_and_the_rest_is_the_database():
    data = load(split="100/20/rest")
    assert torch.bincount(data.train.labels).tolist() == [100] * 10
    assert torch.bincount(data.test.labels).tolist() == [20] * 10
    train, test, database = sets(data)
    assert len(data.database) == 1797 - 1200
    assert train | test | database == set(range(1797))


def test_a_draw_is_the_same_for_every_run_and_every_choice_from_it():
    whole = load(split="100/20/rest")
    assert sets(load(split="100/20/rest")) == sets(whole)
    part = load(split="100/20/rest", classes=[3, 8], train_images=50, test_images=10, database_images=40)
    assert [len(s) for s in (part.train, part.test, part.database)] == [50, 10, 40]
    assert all(one <= other for one, other in zip(sets(part), sets(whole), strict=True))


def test_the_draw_itself_stays_what_it_was():
    data = load(split="100/20/rest")
    assert data.test.indices.sort().values[:8].tolist() == GOLDEN_QUERIES


def test_without_a_split_the_training_images_are_the_database():
    assert load().database is None


@pytest.mark.parametrize("split", ["500/100", "500/100/all", "0/10/rest", "10/0/rest", "a/b/rest", "5/5/rest ", ""])
def test_a_split_of_another_form_is_refused(split):
    with pytest.raises(ValueError, match="'split' expects null, or T/Q/rest"):
        load(split=split)


def test_a_class_with_too_few_images_is_named():
    with pytest.raises(
        ValueError, match=r"class '8' has 174 images in all and 152 of the 153 that its train split needs"
    ):
        load(split="153/22/rest")


def test_a_limit_on_a_database_that_is_not_there_is_refused():
    with pytest.raises(ValueError, match="'database_images' expects null where the data set has no database"):
        load(database_images=10)


LABELS = torch.tensor(
    [[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 1], [0, 0, 0], [0, 1, 1], [1, 0, 1], [0, 0, 1]], dtype=torch.uint8
)
ORDER = torch.tensor([7, 6, 5, 4, 3, 2, 1, 0])


def test_images_of_several_labels_are_ranked_by_the_first_class_that_wants_them():
    # In this order class 0 has 6, 1, 0; class 1 has 5, 2, 1; class 2 has 7, 6, 5, 3.
    chosen, labels = nested(LABELS, [0, 1, 2], True, ORDER)
    assert chosen.tolist() == [6, 5, 7, 1, 2, 0, 3, 4]
    assert torch.equal(labels, LABELS[chosen])


def test_columns_follow_the_classes_and_images_without_one_of_them_go():
    chosen, labels = nested(LABELS, [2, 0], False, ORDER)
    assert chosen.tolist() == [7, 6, 1, 5, 0, 3]
    assert labels.tolist() == [[1, 0], [1, 1], [0, 1], [1, 0], [0, 1], [1, 0]]
    assert labels.dtype is torch.uint8


def one_class_after_the_other(labels, classes, every, order):
    """`nested`, written out: each class ranks its images by itself, and the lowest rank of an image counts."""
    ranks = {}
    for new, old in enumerate(classes):
        carries = [i for i in order.tolist() if (labels[i] == old if labels.dim() == 1 else labels[i, old] > 0)]
        for place, image in enumerate(carries):
            ranks[image] = min(ranks.get(image, 10**9), place * len(classes) + new)
    rest = [image for image in order.tolist() if image not in ranks]
    return sorted(ranks, key=ranks.get) + (rest if every else [])


@pytest.mark.parametrize("classes", [range(7), [5, 0, 3]])
@pytest.mark.parametrize("several", [False, True])
def test_a_nested_choice_is_that_of_one_class_after_the_other(several, classes):
    generator = torch.Generator().manual_seed(3)
    order = torch.randperm(150, generator=generator)
    one = torch.randint(-1, 7, (150,), generator=generator)
    labels = (torch.rand(150, 7, generator=generator) < 0.2).to(torch.uint8) if several else one
    for every in (True, False):
        chosen, relabelled = nested(labels, classes, every, order)
        assert chosen.tolist() == one_class_after_the_other(labels, classes, every, order)
    if not several:
        assert [classes[new] for new in relabelled.tolist()] == labels[chosen].tolist()


def test_a_class_without_images_leaves_the_others_their_ranks():
    chosen, labels = nested(torch.tensor([4, 1, 4, 1]), [1, 2, 4], False, torch.arange(4))
    assert (chosen.tolist(), labels.tolist()) == ([1, 0, 3, 2], [0, 2, 0, 2])
    assert nested(torch.tensor([], dtype=torch.int64), [0, 1], True, torch.arange(0))[0].tolist() == []


def test_an_image_with_several_labels_is_drawn_once():
    generator = torch.Generator().manual_seed(0)
    labels = (torch.rand(400, 5, generator=generator) < 0.4).to(torch.uint8)
    parts = draw(labels, "abcde", 20, 10, torch.randperm(400, generator=generator))
    assert [len(parts[name]) for name in ("train", "test")] == [100, 50]
    assert sorted(torch.cat(list(parts.values())).tolist()) == list(range(400))
    for name, least in (("train", 20), ("test", 10)):
        assert (labels[parts[name]].sum(0) >= least).all()


def test_all_parts_move_together_and_know_their_kind_of_labels():
    def split(count):
        return Split(
            images=torch.zeros(count, 3, 4, 4, dtype=torch.uint8), labels=LABELS[:count], indices=ORDER[:count]
        )

    data = Data(train=split(4), test=split(3), database=split(8), classes=("a", "b", "c"))
    assert data.multi_label
    assert not load().multi_label
    moved = data.to("cpu")
    assert len(moved.database) == 8
    assert torch.equal(moved.database.take(torch.tensor([6, 0])).labels, LABELS[[6, 0]])


def test_validation_images_are_held_out_of_the_training_images_in_equal_shares():
    everything, data = load(), load(validation_images=50)
    assert torch.bincount(data.validation.labels).tolist() == [5] * 10
    train, held = set(data.train.indices.tolist()), set(data.validation.indices.tolist())
    assert not train & held
    assert train | held == set(everything.train.indices.tolist())
    assert torch.equal(data.test.indices, everything.test.indices)
    assert held <= set(load(validation_images=80, train_images=20).validation.indices.tolist())
    assert everything.validation is None
    assert (load(validation_images=30, split="20/5/rest", classes=[3, 8]).train.labels.bincount()).tolist() == [5, 5]


@pytest.mark.parametrize(
    ("count", "parameters"),
    [(1348, {}), (200, {"split": "20/5/rest"}), (40, {"split": "20/5/rest", "classes": [1, 2]})],
)
def test_validation_images_that_leave_no_training_image_are_refused(count, parameters):
    with pytest.raises(ValueError, match=f"fewer than the {count} training images that they are held out of, got"):
        load(validation_images=count, **parameters)


def test_a_fingerprint_has_the_validation_images_and_is_the_old_one_without_them():
    of = {
        name: fingerprint(load(**parameters)) for name, parameters in (("old", {}), ("new", {"validation_images": 9}))
    }
    assert set(of["old"].splits) == {"train", "test"}
    assert set(of["new"].splits) == {"train", "test", "validation"}
    assert of["old"].digest != of["new"].digest

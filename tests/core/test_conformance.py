"""Every member of every registry passes the suite that the package ships for its family."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from targets import QUICK

from signsym_core import ATTACKS, BACKBONES, DATASETS, RULES, TASKS
from signsym_core.attacks import Attack
from signsym_core.backbones.smallcnn import SmallCNN
from signsym_core.datasets import DataSource
from signsym_core.rules import ScaledRule, record
from signsym_core.rules.snapshot import Snapshot
from signsym_core.rules.usf import USF
from signsym_core.testing import check_attack, check_backbone, check_dataset, check_member, check_rule


def recurrent():
    return BACKBONES.build("rnn", hidden=6).build(3, channels=1, size=5, seed=0)


#: What a rule that trains no network of convolutions is checked on.
NETWORKS = {"lra": (recurrent, torch.rand(6, 1, 4, 5, generator=torch.Generator().manual_seed(1)))}


@pytest.mark.parametrize("rule", RULES, ids=RULES.names)
def test_rule(rule):
    check_rule(rule(), *NETWORKS.get(rule.name, ()))


@pytest.mark.slow
@pytest.mark.parametrize("scale", ["rms", "rms_channel", "mean_abs", "xavier", "he_fanout", "unit"])
@pytest.mark.parametrize("name", [rule.name for rule in RULES if issubclass(rule, ScaledRule)])
def test_rule_at_every_scale(name, scale):
    check_rule(RULES.build(name, scale=scale))


def test_rule_redrawn_at_every_forward_passes_too():
    check_rule(RULES.build("brsf", redraw="forward"))


@pytest.mark.parametrize("name", ATTACKS.names)
def test_attack(name):
    check_attack(ATTACKS.build(name, **QUICK.get(name, {})))


@pytest.mark.slow
@pytest.mark.parametrize("backbone", BACKBONES, ids=BACKBONES.names)
def test_backbone(backbone):
    check_backbone(backbone())


@pytest.mark.parametrize("member", [*DATASETS, *TASKS], ids=[*DATASETS.names, *TASKS.names])
def test_member(member):
    check_member(member())


def test_the_suite_fails_a_rule_whose_scale_changes_nothing():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Sized(ScaledRule):
        """B = sign(W), whatever the scale."""

        name, label, citation = "sized", "sized", "none"

        def build(self, weight, draw, size, out):
            torch.sign(weight, out=out)

    with pytest.raises(AssertionError, match="sized: its parameter 'scale' changes nothing"):
        check_rule(Sized())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stripes(DataSource):
    """Eight images of each of three classes, every fourth to test."""

    name, label, citation = "stripes", "stripes", "none"
    stated = (18, 6)

    def load(self, root):
        labels = torch.arange(24) % 3
        images = (labels * 80).to(torch.uint8).view(24, 1, 1, 1).expand(24, 1, 4, 4)
        at = torch.arange(24)
        members = {"train": at[at % 4 > 0], "test": at[at % 4 == 0]}
        return self.assemble("abc", self.choose("abc", labels, members), lambda rows: images[rows])


def changed(data, **values):
    return dataclasses.replace(data, train=dataclasses.replace(data.train, **values))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda data: changed(data, labels=torch.randint(3, (len(data.train),))),
            "loaded twice, train has other labels",
        ),
        (lambda data: changed(data, images=data.train.images / 255), r"train: images must be uint8 .* torch\.float32"),
        (lambda data: changed(data, images=data.train.images[:, 0]), r"train: images must be uint8 .*\[18, 4, 4\]"),
        (lambda data: changed(data, images=torch.zeros(18, 8, 8, 3, dtype=torch.uint8)), "whose channels come last"),
        (lambda data: changed(data, images=data.train.images[:5]), "must be equally many, got 5, 18 and 18"),
        (
            lambda data: Stripes().choose("ab", torch.arange(24) % 3, {"train": torch.arange(9)}),
            "labels must lie in 0 .. 1",
        ),
        (lambda data: changed(data, images=torch.randint_like(data.train.images, 256)), "has other pixels"),
        (lambda data: changed(data, labels=data.train.labels + 1), "labels must lie in 0 .. 2, got 3"),
        (lambda data: changed(data, indices=data.train.indices * 0), "the number of an image occurs twice"),
        (
            lambda data: dataclasses.replace(data, train=data.train.take(torch.arange(12))),
            "stated says 18 .* expected 12",
        ),
    ],
)
def test_the_suite_fails_a_data_set_that_breaks_a_promise(change, words, tmp_path):
    check_dataset(Stripes(), tmp_path)

    class Broken(Stripes):
        """Stripes, but for one promise."""

        def load(self, root):
            return change(super().load(root))

    # What would be trained on without a word is refused where the data set is made, by the suite or not.
    with pytest.raises((AssertionError, ValueError), match=words):
        check_dataset(Broken(), tmp_path)


def test_the_suite_fails_a_data_set_whose_parameters_do_nothing(tmp_path):
    class Whole(Stripes):
        """All stripes, whatever the parameters."""

        def load(self, root):
            return Stripes().load(root)

    with pytest.raises(AssertionError, match=r"train_images 9 gives 18 images: choose with self.choose"):
        check_dataset(Whole(), tmp_path)


@pytest.mark.parametrize("name", ["digits", "recall"])
def test_data_sets_that_read_nothing(name, tmp_path):
    check_dataset(DATASETS.build(name), tmp_path)


def test_corrupted_images(tmp_path):
    check_dataset(DATASETS.build("digits", corruption="shot_noise", severity=2), tmp_path)


def pixels(data, images):
    return dataclasses.replace(data, test=dataclasses.replace(data.test, images=images))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data, _: data, "leaves the test images as they are"),
        (
            lambda data, tested: dataclasses.replace(
                tested, train=data.train.take(torch.arange(len(data.train)).flip(0))
            ),
            "but change the indices of train",
        ),
        (
            lambda data, tested: dataclasses.replace(tested, test=data.test.take(torch.arange(len(data.test)).flip(0))),
            "but change the indices of test",
        ),
        (lambda _, tested: pixels(tested, tested.test.images.flip(0)), "other pixels where test_images"),
    ],
)
def test_the_suite_fails_corruptions_that_change_more_or_less_than_test_images(change, words, tmp_path):
    class Broken(type(DATASETS.build("digits"))):
        """Digits whose corruption breaks a promise."""

        def tested(self, data, root):
            return change(data, super().tested(data, root)) if self.corruption else data

    with pytest.raises(AssertionError, match=words):
        check_dataset(Broken(corruption="shot_noise", severity=2), tmp_path)


def test_a_head_that_is_no_linear_layer_is_named_with_those_that_are():
    class Headless(SmallCNN):
        """A small CNN that names another module as its head."""

        head = "features"

    with pytest.raises(TypeError, match=r"'smallcnn': head expects .*, got 'features', .*; its Linear layers: \w+"):
        check_backbone(Headless())


def test_the_suite_fails_a_backbone_that_takes_no_grey_images():
    class Coloured(SmallCNN):
        """A small CNN whose normalisation makes three channels of one."""

        mean, std = (0.5,) * 3, (0.25,) * 3

    with pytest.raises(AssertionError, match=r"smallcnn fails on grey images .* needs a mean and a std of one value"):
        check_backbone(Coloured())


def test_the_suite_fails_a_rule_with_wrong_signs():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Flipped(USF):
        """B = -s · sign(W)."""

        def build(self, weight, draw, size, out):
            super().build(weight, draw, size, out)
            out.neg_()

    with pytest.raises(AssertionError, match="signs of W"):
        check_rule(Flipped())


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda self, weight, draw, size, out: weight.sign() * size, "build must write B into `out` .* a Tensor"),
        (lambda self, weight, draw, size, out: setattr(out, "data", weight / 0), "B has 216 entries .* in layer 0"),
    ],
    ids=["returned", "infinite"],
)
def test_the_suite_fails_a_rule_whose_b_is_not_there(build, words):
    rule = type("Absent", (USF,), {"build": build, "__doc__": "none"})
    with pytest.raises((AssertionError, TypeError), match=words):
        check_rule(rule())


def test_the_suite_fails_a_matrix_that_is_kept_by_counters(monkeypatch):
    monkeypatch.setattr(Snapshot, "holds", lambda self, weight: True)
    with pytest.raises(AssertionError, match="weights as they are"):
        check_rule(USF())


def test_the_suite_fails_a_rule_that_keeps_a_matrix_of_its_own():
    kept = {}

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Keeping(USF):
        """B = s · sign(W) as it was when the tensor was met first."""

        def build(self, weight, draw, size, out):
            if weight.data_ptr() not in kept:
                super().build(weight, draw, size, out)
                kept[weight.data_ptr()] = out.clone()
            out.copy_(kept[weight.data_ptr()])

    with pytest.raises(AssertionError, match="weights as they are"):
        check_rule(Keeping())


def test_the_suite_fails_records_that_cannot_be_averaged(monkeypatch):
    monkeypatch.setattr(record, "write", lambda fields: torch.zeros(len(str(fields)), dtype=torch.uint8))
    with pytest.raises((AssertionError, RuntimeError), match="lerp"):
        check_rule(USF())


def test_the_suite_fails_a_tag_that_promises_a_fixed_b():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Promising(USF):
        """B = s · sign(W)."""

        tags = frozenset({"fixed-after-init"})

    with pytest.raises(AssertionError, match="fixed after initialisation"):
        check_rule(Promising())


def test_the_suite_fails_an_attack_that_depends_on_the_other_epsilons():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Drifting(Attack):
        """A new random image each time it is asked."""

        name, label, citation = "drifting", "drifting", "a test"

        def run(self, problem, epsilon):
            return torch.rand_like(problem.images)

    with pytest.raises(AssertionError, match=r"one seed|depends on others, or on random numbers that the problem"):
        check_attack(Drifting())


@pytest.mark.parametrize(
    ("run", "words"),
    [
        (lambda self, problem, epsilon: None, r"must return images float\[9, 3, 8, 8\] .*; got None"),
        (lambda self, problem, epsilon: (problem.images * 255).byte(), r"got Tensor torch\.uint8\[9, 3, 8, 8\]"),
        (lambda self, problem, epsilon: problem.images[:, :1], r"got Tensor torch\.float32\[9, 1, 8, 8\]"),
        (lambda self, problem, epsilon: problem.images * math.nan, "6912 pixels of its images, .* are NaN"),
    ],
    ids=["nothing", "bytes", "shape", "NaN"],
)
def test_the_suite_fails_an_attack_that_returns_no_images(run, words):
    """A shape that broadcasts, and bytes, would be scored without a word."""
    names = dict.fromkeys(("name", "label", "citation", "__doc__"), "wrong")
    with pytest.raises((AssertionError, ValueError), match=words):
        check_attack(type("Wrong", (Attack,), names | {"run": run})())


def test_an_attack_in_double_precision_is_brought_to_that_of_the_images():
    def run(self, problem, epsilon):
        return problem.images.double() + epsilon

    check_attack(
        type("Double", (Attack,), dict.fromkeys(("name", "label", "citation", "__doc__"), "d") | {"run": run})()
    )

"""What is accepted from outside: forms of outputs, types of numbers, epsilons, labels and images; the rest in words."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import OrderedDict, namedtuple

import numpy as np
import pytest
import torch
from targets import QUICK, right, small
from torch import nn

import signsym_core as ss
from signsym_core.attacks.ball import representable, sizes
from signsym_core.attacks.radii import fraction, radii
from signsym_core.auditing import probes
from signsym_core.models.outputs import as_outputs
from signsym_core.training.health import NonFiniteWeightsError
from signsym_core.validation import whole_number

CLASSIFYING = [cls.name for cls in ss.ATTACKS if "classification" in cls.tasks]


@dataclasses.dataclass
class Answer:
    loss: object
    logits: torch.Tensor


class Returning(nn.Module):
    def __init__(self, network, form):
        super().__init__()
        self.network, self.form = network, form

    def forward(self, images):
        return self.form(self.network(images))


FORMS = {
    "dataclass": lambda z: Answer(None, z),
    "mapping": lambda z: OrderedDict(loss=None, logits=z),
    "named tuple": lambda z: namedtuple("Output", "logits aux_logits")(z, None),
    "double": lambda z: z.double(),
}


@pytest.mark.slow
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["none", "pgd", "apgd", "square", "hopskipjump"])
def test_logits_are_taken_from_what_holds_them(name, form):
    network = small()
    images, labels = right(network, n=8)
    settings = {"seed": 1, **QUICK.get(name, {})}
    plain = ss.attack(name, network, images, labels, [0.0, 0.1], **settings)
    ours = ss.attack(name, Returning(network, FORMS[form]), images, labels, [0.0, 0.1], **settings)
    assert torch.equal(ours.scores, plain.scores)
    assert torch.equal(ours.linf, plain.linf)


WRONG = {
    "tuple": (lambda z: (z, z), r"got a tuple of \[8, 5\] of torch.float32, \[8, 5\]"),
    "list": (lambda z: [z], "got a list of"),
    "mapping": (lambda z: {"out": z}, "got a dict with the keys 'out'"),
    "empty mapping": (lambda z: {}, "the keys none"),
    "dataclass": (lambda z: Answer(z, None), "got a Answer with the fields 'loss', 'logits'"),
    "nothing": (lambda z: None, r"got None \(NoneType\)"),
    "array": (lambda z: z.detach().numpy(), "ndarray"),
    "three dimensions": (lambda z: z[:, :, None], r"\[8, classes\], got \[8, 5, 1\]"),
    "one dimension": (lambda z: z[:, 0], r"got \[8\]"),
    "too few rows": (lambda z: z[:-1], r"got \[7, 5\]"),
    "whole numbers": (lambda z: (z * 9).long(), r"got \[8, 5\] of torch.int64"),
    "complex": (lambda z: z.to(torch.complex64), "complex64"),
    "one class": (lambda z: z[:, :1], r"\[8, 1\]"),
}


CALLS = {
    "attack": lambda model, images, labels: ss.attack("fgsm", model, images, labels, [0.1]),
    "measure": probes.measure,
    "audit": lambda model, images, labels: ss.audit(model, images, labels, [0.1], steps=2, queries=3),
}


@pytest.mark.parametrize("form", WRONG)
@pytest.mark.parametrize("call", CALLS)
def test_what_holds_no_logits_is_named(call, form):
    make, words = WRONG[form]
    network = small("bp")
    images, labels = right(network, n=8)
    model = Returning(network, make)
    with pytest.raises(ValueError, match=words) as caught:
        CALLS[call](model, images, labels * 0)
    assert "the model must give" in str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", CLASSIFYING)
def test_every_attack_runs_on_models_and_images_of_16_bits(name, dtype):
    network = small("bp").to(dtype)
    images = torch.rand(10, 3, 10, 10, generator=torch.Generator().manual_seed(1)).to(dtype)
    labels = network(images).argmax(1)
    epsilons = [0.0, 0.05, 0.3]
    outcome = ss.attack(name, network, images, labels, epsilons, keep=10, **QUICK.get(name, {}))
    assert outcome.adversarial.dtype == dtype
    for row, epsilon in enumerate(epsilons):
        made = outcome.adversarial[row]
        assert sizes(made.double() - images.double(), outcome.norm).max() <= epsilon
        judged = network(made).argmax(1) == labels
        if epsilon and ss.ATTACKS[name].certifying:
            judged = outcome.measured["radius"][row] > epsilon
        assert torch.equal(outcome.robust[row], judged), "judged on what was returned"
    if name in ("fgsm", "pgd", "apgd", "autoattack"):
        assert outcome.scores[2].mean() < 0.5


def test_an_image_in_16_bits_never_leaves_the_ball():
    generator = torch.Generator().manual_seed(0)
    for dtype, epsilon in itertools.product((torch.float16, torch.bfloat16), (1e-4, 8 / 255, 0.3)):
        images = torch.rand(50, 3, 8, 8, generator=generator).to(dtype).float()
        images[0], images[1] = 0, 1
        moved = (images + epsilon * (2 * torch.rand(images.shape, generator=generator) - 1)).clamp(0, 1)
        rounded = representable(images, moved, dtype)
        assert torch.equal(rounded, rounded.to(dtype).float())
        assert ((rounded - images).abs().double() <= (moved.double() - images.double()).abs()).all()
        # Not further from what was proposed than the next number is.
        spacing = torch.finfo(dtype).eps * torch.maximum(moved, images) + 2.0**-24
        assert ((rounded - moved).abs() <= spacing).all()


def test_images_of_another_type_than_the_models_are_named():
    network = small("bp").half()
    images, labels = torch.rand(4, 3, 10, 10), torch.zeros(4, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"they are torch.float32 on cpu, its parameters torch.float16"):
        ss.attack("fgsm", network, images, labels, [0.1])


@pytest.mark.parametrize(
    ("epsilons", "expected"),
    [
        ([0, 0.5, 1], (0.0, 0.5, 1.0)),
        (["8/255", "0/1"], (8 / 255, 0.0)),
        ((0.25,), (0.25,)),
        (np.array([0.5, 0.25]), (0.5, 0.25)),
        (torch.tensor([0.5, 0.25]), (0.5, 0.25)),
        ([np.float64(0.5), np.int64(1), torch.tensor(0.25), -0.0], (0.5, 1.0, 0.25, 0.0)),
        (range(2), (0.0, 1.0)),
    ],
)
def test_epsilons_of_many_types_are_floats(epsilons, expected):
    taken = radii(epsilons)
    assert taken == expected
    assert all(type(each) is float and math.copysign(1, each) == 1 for each in taken)


def test_a_fraction_is_the_grids():
    network = small()
    images, labels = right(network, n=4)
    text, number = (ss.attack("fgsm", network, images, labels, [e]) for e in ("8/255", 8 / 255))
    assert text.epsilons == number.epsilons == (8 / 255,)
    assert torch.equal(text.linf, number.linf)
    assert [fraction(t) for t in ("1/0", "a/b", "0.5", "-1/2", "1/2 ")] == [None] * 5


@pytest.mark.parametrize(
    ("epsilons", "words"),
    [
        (0.1, r"list of radii, such as \[0.1\], got 0.1 \(float\)"),
        ("8/255", "list of radii"),
        (None, "list of radii"),
        ({0.1}, "list of radii"),
        (torch.tensor(0.1), "list of radii"),
        ([], "at least one"),
        (np.zeros(0), "at least one"),
        ([0.1, -0.1], r"epsilons\[1\] must be .* in \[0, 1\], got -0.1"),
        ([math.nan], "got nan"),
        ([math.inf], "got inf"),
        ([1.5], "got 1.5"),
        ([10**400], "in"),
        ([True], r"got True \(bool\)"),
        (["0.1"], r'a fraction such as "8/255", .* got \'0.1\' \(str\)'),
        (["256/255"], "got 1.0"),
        (["1/0"], "got '1/0'"),
        ([None], r"got None"),
        ([1j], "got 1j"),
        ([[0.1]], r"got \[0.1\] \(list\)"),
        (torch.rand(2, 2), "got "),
    ],
)
@pytest.mark.parametrize("call", [ss.attack, ss.audit])
def test_other_epsilons_are_refused_in_words(call, epsilons, words):
    network = small()
    images, labels = right(network, n=4)
    first = ("none", network) if call is ss.attack else (network,)
    with pytest.raises(ValueError, match=words):
        call(*first, images, labels, epsilons)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"images": np.zeros((4, 3, 10, 10), np.float32)}, "torch tensor, got ndarray float32"),
        ({"images": torch.zeros(4, 3, 10, 0)}, "one pixel"),
        ({"images": torch.zeros(4, 300)}, r"got torch.float32\[4, 300\]"),
        ({"images": torch.zeros(4, 3, 10, 10, dtype=torch.int64)}, "int64"),
        ({"images": torch.full((4, 3, 10, 10), math.nan)}, r"NaN or infinity in 4 of them \(numbers 0, 1, 2, 3\)"),
        ({"images": torch.full((4, 3, 10, 10), 255.0)}, r"\[0, 1\] .* got 255 .. 255"),
        ({"labels": [0, 1, 2, 3]}, r"tensor with an entry for each image, got \[0, 1, 2, 3\] \(list\)"),
        ({"labels": torch.zeros(4)}, r"int64\[n\] .* got torch.float32\[4\]"),
        ({"labels": torch.zeros(4, dtype=torch.int32)}, "got torch.int32"),
        ({"labels": torch.zeros(4, 5, 1)}, r"got torch.float32\[4, 5, 1\]"),
        ({"labels": torch.zeros(3, dtype=torch.int64)}, "equally many, got 4 and 3"),
        ({"labels": torch.full((4,), 5)}, r"0 \.\. 4"),
        ({"labels": torch.full((4,), -1)}, r"0 \.\. 4"),
        ({"labels": torch.eye(4)}, r"0/1 \[n, 5\]"),
        ({"labels": torch.full((4, 5), 0.2)}, r"0/1 \[n, 5\]"),
        ({"model": lambda images: images}, r"must be a torch.nn.Module.*, got <function"),
        ({"labels": torch.zeros(4, dtype=torch.int64, device="meta")}, "one device, got cpu and meta"),
    ],
)
@pytest.mark.parametrize("call", CALLS)
def test_other_images_labels_and_models_are_refused_in_words(call, change, words):
    network = small("bp")
    images, labels = right(network, n=4)
    given = {"model": network, "images": images, "labels": labels} | change
    with pytest.raises(ValueError, match=words):
        CALLS[call](**given)


@pytest.mark.parametrize(
    "settings",
    [{"micro_batch": 0}, {"micro_batch": 2.5}, {"keep": -1}, {"keep": True}, {"seed": 1.5}, {"seed": "one"}],
)
def test_whole_numbers_are_whole(settings):
    network = small()
    (name,) = settings
    with pytest.raises(ValueError, match=f"{name} must be a whole number, at least"):
        ss.attack("none", network, *right(network, n=4), [0.0], **settings)
    assert whole_number("k", np.int64(3), 1) == 3


def test_weights_that_are_not_finite_are_not_attacked():
    """An infinite running variance gives finite outputs: the same for every image."""
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(256, 5)).eval()
    network[1].running_var.fill_(math.inf)
    images = torch.rand(4, 3, 10, 10)
    assert network(images).isfinite().all()
    with pytest.raises(NonFiniteWeightsError, match=r"the model holds NaN or infinity in '1.running_var'"):
        ss.attack("none", network, images, torch.zeros(4, dtype=torch.int64), [0.0])


def test_labels_of_a_fine_tune_are_its_classes():
    source = ss.DATASETS.build("digits", train_images=40, test_images=20, classes=[0, 1, 2])
    train = source.load(None).train
    model = ss.BACKBONES.build("smallcnn", width=4).build(3, channels=1, size=8, seed=0)
    settings, task = ss.FineTune(epochs=1), ss.TASKS.build("classification")
    for labels, words in ((train.labels + 1, r"in 0 \.\. 2, .* got 1 \.\. 3"), (train.labels.float(), "int64")):
        wrong = dataclasses.replace(train, labels=labels)
        with pytest.raises(ValueError, match=words):
            ss.fine_tune(model, wrong, source, task, settings, seed=0, classes=3)


def test_a_fine_tune_takes_logits_from_what_holds_them():
    source = ss.DATASETS.build("digits", train_images=40, test_images=20, classes=[0, 1, 2])
    train, losses = source.load(None).train, []
    for form in (lambda z: z, FORMS["dataclass"]):
        model = ss.BACKBONES.build("smallcnn", width=4).build(3, channels=1, size=8, seed=0)
        forward = model.forward
        model.forward = lambda images, forward=forward, form=form: form(forward(images))
        settings, task = ss.FineTune(epochs=1), ss.TASKS.build("classification")
        losses.append(ss.fine_tune(model, train, source, task, settings, seed=0, micro_batch=16)[-1]["loss"])
    assert losses[0] == losses[1]


def test_half_outputs_are_widened_and_others_are_left_as_they_are():
    for dtype in (torch.float16, torch.bfloat16, torch.float32):
        assert as_outputs(torch.ones(2, 3, dtype=dtype), 2).dtype == torch.float32
    double = torch.ones(2, 3, dtype=torch.float64)
    assert as_outputs(double, 2) is double

"""HAG and SDHA: their losses written out, the recipes step by step, and that they do more than noise."""

from __future__ import annotations

import math

import pytest
import torch

import signsym_core as ss
from signsym_core.attacks.hag import hag_loss, schedule, slopes
from signsym_core.attacks.sdha import sdha_distance
from signsym_core.datasets import inputs
from signsym_core.evaluation.attack import WeakAttackWarning
from signsym_core.retrieval.codes import Codes, signs
from signsym_core.retrieval.ranking import average_precision

pytestmark = pytest.mark.slow

EPSILON = 0.15


@pytest.fixture(scope="module")
def trained():
    """A small hashing network on digits, its queries and its gallery."""
    source = ss.DATASETS.build("digits", size=8, split="40/10/rest")
    data = source.load(None)
    task = ss.TASKS.build("hashing", bits=32, k=500)
    model = ss.BACKBONES.build("smallcnn", width=8).build(32, channels=1, size=8, seed=0)
    ss.fine_tune(model, data.train, source, task, ss.FineTune(epochs=30, lr=2e-3, head_lr=2e-3), seed=0)
    gallery = ss.Gallery(database=ss.encode(model, data.database, source), train=ss.encode(model, data.train, source))
    return model.eval(), task, inputs(data.test.images, source), data.test.labels, gallery


def attacked(name, trained, epsilons, **parameters):
    model, task, images, labels, gallery = trained
    return ss.attack(name, model, images, labels, epsilons, task=task, gallery=gallery, **parameters)


@pytest.mark.parametrize("name", ["hag", "sdha"])
def test_each_lowers_map_far_more_than_noise_of_the_same_size(trained, name):
    model, _, images, labels, gallery = trained
    outcome = attacked(name, trained, [0.0, EPSILON])
    random = torch.Generator().manual_seed(0)
    noisy = (images + (torch.rand(images.shape, generator=random) * 2 - 1).sign() * EPSILON).clamp(0, 1)
    with torch.no_grad():
        noise = float(average_precision(Codes(signs=signs(model(noisy)), labels=labels), gallery.database, 500).mean())
    clean, lost = outcome.accuracy
    assert clean > 0.9
    assert clean - noise < 0.1
    assert clean - lost > 0.4
    assert outcome.reach[1] == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("scale", [0.01, 100.0])
def test_sign_steps_do_not_depend_on_the_size_of_the_outputs(trained, scale):
    model, task, images, labels, gallery = trained
    scaled = torch.nn.Sequential(model, _Times(scale))
    for name in ("hag", "sdha"):
        one = ss.attack(name, model, images, labels, [EPSILON], task=task, gallery=gallery)
        other = ss.attack(name, scaled, images, labels, [EPSILON], task=task, gallery=gallery)
        assert other.accuracy[0] == pytest.approx(one.accuracy[0], abs=0.02)


class _Times(torch.nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def test_the_published_recipe_of_hag_depends_on_the_size_of_the_gradient_and_ours_does_not(trained):
    # A fiftieth of the rate is what a fiftieth of the gradient does to it.
    weak = attacked("hag-saat", trained, [EPSILON], lr=2.0).accuracy[0]
    strong = attacked("hag-saat", trained, [EPSILON]).accuracy[0]
    assert weak - strong > 0.2


def test_the_published_recipe_of_sdha_stands_still_beyond_its_reach(trained):
    with pytest.warns(WeakAttackWarning):
        outcome = attacked("sdha-saat", trained, [0.2, 0.5])
    assert outcome.accuracy[0] == outcome.accuracy[1]
    assert float(outcome.linf.max()) < 0.06


def test_the_loss_of_hag_by_hand():
    smooth = torch.tensor([[0.9, 0.2, -0.8]])
    clean = torch.tensor([[0.5, 0.5, 0.6]])
    # The last bit is flipped beyond the margin: two bits are left.
    agreement = (0.9 * 0.5 + 0.2 * 0.5) / 2
    wanted = (agreement + 1) ** 2 + 2.0 * ((0.9 + 0.2) / 3) ** 2
    assert hag_loss(smooth, clean, margin=0.5, balance=2.0).item() == pytest.approx(wanted, abs=1e-6)


def test_the_distance_of_sdha_is_the_sum_over_pairs_written_out():
    random = torch.Generator().manual_seed(0)
    smooth = torch.tanh(torch.randn(5, 8, generator=random, dtype=torch.float64)).requires_grad_()
    codes = signs(torch.randn(20, 8, generator=random))
    train = Codes(signs=codes, labels=torch.randint(0, 3, (20,), generator=random))
    labels = torch.tensor([0, 1, 2, 0, 7])  # no training image is of class 7
    ours = sdha_distance(smooth, labels, train, sharpness=5.0, power=0.5)
    for image in range(5):
        own = [code for code, label in zip(codes.double(), train.labels, strict=True) if label == labels[image]]
        total = 0.0
        for code in own or [signs(smooth[image].detach()).double()]:
            weight = ((signs(smooth[image].detach()).double() != code).sum() + 1e-8) ** -0.5
            agree = torch.sigmoid(5.0 * smooth[image] * code)
            total = total + weight * (0.5 * (smooth[image] - code).abs() * agree + 1 - agree).sum()
        wanted = 25 / 8 * total / max(1, len(own))
        torch.testing.assert_close(ours[image], wanted)
        (one,) = torch.autograd.grad(ours[image], smooth, retain_graph=True)
        (other,) = torch.autograd.grad(wanted, smooth, retain_graph=True)
        torch.testing.assert_close(one, other)


def test_the_recipes_steps_written_out_with_torchs_own_optimisers(trained):
    model, task, images, labels, gallery = trained
    few, kinds = images[:6], labels[:6]
    own = torch.tanh(model(few)).detach()
    for name, optimizer in (("hag-saat", torch.optim.SGD), ("sdha-saat", torch.optim.Adam)):
        moved = few.clone().requires_grad_()
        settings = {"lr": 100.0, "momentum": 0.9} if name == "hag-saat" else {"lr": 0.01}
        steps = optimizer([moved], **settings)
        for slope in (0.1, 0.1, 0.1, 0.3):
            steps.zero_grad()
            smooth = torch.tanh(slope * model(moved))
            if name == "hag-saat":
                loss = hag_loss(smooth, own, 0.5, 1.0).mean()
            else:
                apart = sdha_distance(smooth, kinds, gallery.train, 5.0, 0.5)
                loss = torch.nn.functional.mse_loss(moved, few) - apart.mean()
            loss.backward()
            steps.step()
            with torch.no_grad():
                moved.copy_((few + (moved - few).clamp(-0.03, 0.03)).clamp(0, 1))
        ours = ss.attack(name, model, few, kinds, [0.03], task=task, gallery=gallery, batch=6, keep=6)
        torch.testing.assert_close(ours.adversarial[0], moved.detach(), rtol=0, atol=2e-5)


def test_five_iterations_see_the_slopes_of_the_published_schedule():
    assert schedule(5) == [0.1, 0.1, 0.1, 0.3]
    assert schedule(10) == [0.1] * 5 + [0.2, 0.3, 0.5, 0.7]


def test_a_dead_output_keeps_a_finite_slope():
    assert slopes(torch.tensor([[0.0, 0, 0], [4, -2, 1]]), 1.0).flatten().tolist() == [1.0, 0.5]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"gallery": None}, "needs a gallery"),
        ({"carry": True}, "carry"),
        ({"gradient": "transfer"}, "needs a surrogate"),
        ({"surrogate": torch.nn.Identity()}, "with one"),
        ({"name": "pgd"}, "does not fit task 'hashing'"),
    ],
)
def test_what_does_not_fit_is_refused(trained, change, words):
    model, task, images, labels, gallery = trained
    given = {"name": "hag", "task": task, "gallery": gallery} | change
    with pytest.raises(ValueError, match=words):
        ss.attack(given.pop("name"), model, images, labels, [0.1], **given)


def test_transferred_images_are_made_on_the_surrogate_and_scored_on_the_model(trained):
    model, task, images, labels, gallery = trained
    other = ss.BACKBONES.build("smallcnn", width=8).build(32, channels=1, size=8, seed=5).eval()
    known = ss.Gallery(database=gallery.database, train=Codes(signs=signs(other(images).detach()), labels=labels))
    same = {"task": task, "gallery": known, "keep": len(images)}
    made = ss.attack("sdha", other, images, labels, [0.1], gradient="exact", **same)
    moved = ss.attack("sdha", model, images, labels, [0.1], gradient="transfer", surrogate=other, **same)
    assert torch.equal(made.adversarial, moved.adversarial)
    with torch.no_grad():
        codes = Codes(signs=signs(model(moved.adversarial[0])), labels=labels)
    assert torch.equal(moved.scores[0], average_precision(codes, gallery.database, 500))
    assert math.isclose(moved.reach[0], 1, abs_tol=0.05)

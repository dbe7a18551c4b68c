"""Randomised smoothing: the exact radius of a linear model, a loop written out, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import binomtest, norm
from targets import right, small
from torch import nn

import signsym_core as ss
from signsym_core.attacks import ATTACKS
from signsym_core.attacks.streams import Counted
from signsym_core.evaluation.attack import WeakAttackWarning
from signsym_core.seeds import derive


class Halves(nn.Module):
    """Class 0 where <w, x> + b > 0, with |w| = 1, else class 1: the distance to the boundary is |<w, x> + b|."""

    def __init__(self, shift=0.0):
        super().__init__()
        w = torch.randn(12, generator=torch.Generator().manual_seed(3))
        self.weight, self.shift = nn.Parameter(w / w.norm()), shift

    def forward(self, images):
        distance = images.flatten(1) @ self.weight + self.shift
        return torch.stack([distance, -distance], dim=1)


def pixels(count=40):
    return torch.rand(count, 3, 2, 2, generator=torch.Generator().manual_seed(1))


def test_a_linear_model_is_certified_up_to_its_boundary_and_never_beyond():
    model, images = Halves(), pixels()
    logits = model(images).detach()
    distance, labels = logits[:, 0].abs().double(), logits.argmax(1)
    outcome = ss.attack("smoothing", model, images, labels, [0.0, 0.1, 0.3], samples=4000, alpha=1e-6, seed=5)
    radius = outcome.measured["radius"][1]
    # f is c at x + N(0, σ²) with probability Φ(d / σ), so that R is d but for the doubt of 4,000 draws.
    assert (radius <= distance).all()
    near = distance < 2 * 0.25
    assert near.sum() > 20
    assert (radius[near] > distance[near] - 0.1).all()
    assert outcome.norm == "l2"
    assert torch.equal(outcome.robust[1:], torch.stack([radius > 0.1, radius > 0.3]))
    assert 0 < outcome.accuracy[2] < outcome.accuracy[1] < outcome.accuracy[0] == 1
    assert outcome.measured["radius"][0].isnan().all()


def test_the_radius_is_that_of_a_loop_over_the_draws_of_each_image():
    model, sigma, alpha = small(), 0.5, 0.01
    images, labels = right(model, 7)
    labels = labels.clone()
    labels[2] = (labels[2] + 1) % 5
    more = {"sigma": sigma, "selection": 4, "samples": 30, "alpha": alpha}
    outcome = ss.attack("smoothing", model, images, labels, [0.05, 0.2], seed=8, micro_batch=3, **more)
    for number, image in enumerate(images):
        stream = Counted([derive(8, "image", number)], images)
        noise = [stream.normal(torch.tensor([0]), draw, image.numel()).view_as(image) for draw in range(34)]
        tops = [int(model((image + sigma * each)[None]).argmax()) for each in noise]
        chosen = max(range(5), key=lambda c: (tops[:4].count(c), -c))
        kept = tops[4:].count(chosen)
        p = binomtest(kept, 30, alternative="greater").proportion_ci(1 - alpha, method="exact").low
        expected = sigma * norm.ppf(p) if p > 0.5 and chosen == labels[number] else 0.0
        assert outcome.measured["radius"][0, number] == pytest.approx(expected)
        assert outcome.robust[:, number].tolist() == [expected > 0.05, expected > 0.2]
    alone = ss.attack("smoothing", model, images[:3], labels[:3], [0.2], seed=8, **more)
    assert torch.equal(alone.scores[0], outcome.scores[1, :3])


@pytest.mark.parametrize(("kept", "some"), [(0, False), (500, False), (549, False), (550, True), (1000, True)])
def test_a_share_without_a_clear_majority_is_no_certificate(kept, some):
    attack = ATTACKS.build("smoothing")
    low = binomtest(kept, 1000, alternative="greater").proportion_ci(0.999, method="exact").low
    radius = attack.certified(torch.tensor([kept]).numpy())[0]
    assert radius == pytest.approx(max(0.25 * norm.ppf(max(low, 0.5)), 0))
    assert (radius > 0) == some


def test_a_radius_that_no_draws_reach_is_warned_of():
    model, images = Halves(shift=9.0), pixels(3)
    labels = model(images).argmax(1)
    # All 1,000 draws of each are of one class: p^1000 = 0.001.
    limit = 0.25 * norm.ppf(0.001 ** (1 / 1000))
    with pytest.warns(WeakAttackWarning, match=rf"from ε = {limit:.4g} on, so that its score at 0\.7, 1 is 0 whatever"):
        outcome = ss.attack("smoothing", model, images, labels, [0.0, 0.6, 0.7, 1])
    assert outcome.accuracy == [1, 1, 0, 0]
    assert outcome.measured["radius"][1].tolist() == pytest.approx([limit] * 3)
    assert not ATTACKS.build("smoothing").hopeless(limit * (1 - 1e-9))
    # Of nine draws none is enough: 0.001^(1/9) < 1/2.
    assert ATTACKS.build("smoothing", samples=9).hopeless(1e-9)
    assert not ATTACKS.build("pgd").hopeless(1.0)


def test_what_the_model_itself_does_stands_at_epsilon_0_and_in_the_predictions():
    # Right at the image, by a hair: the noise takes half of the draws to the other class.
    model, image = Halves(), pixels(1)
    model.shift = float(1e-4 - (image.flatten(1) @ model.weight).detach())
    outcome = ss.attack("smoothing", model, image, torch.tensor([0]), [0.0, 0.01], keep=1, carry=True)
    assert outcome.accuracy == [1.0, 0.0]
    assert outcome.predictions.tolist() == [[0], [0]]
    assert torch.equal(outcome.adversarial[1], image)
    assert outcome.sizes[1].item() == 0


def test_images_with_several_labels_are_right_by_any_of_them():
    model, images = Halves(), pixels(20)
    single = ss.attack("smoothing", model, images, model(images).argmax(1), [0.1], sigma=0.1).measured["radius"][0]
    both, none = torch.ones(20, 2, dtype=torch.uint8), torch.zeros(20, 2, dtype=torch.uint8)
    by_labels = [
        ss.attack("smoothing", model, images, labels, [0.1], sigma=0.1).measured["radius"][0] for labels in (both, none)
    ]
    assert torch.equal(by_labels[0], single)
    assert single.gt(0).any()
    assert by_labels[1].eq(0).all()


@pytest.mark.parametrize("gradient", ["transfer", "hybrid"])
def test_a_surrogate_is_refused_whose_own_certificates_would_be_shown(gradient):
    with pytest.raises(ValueError, match="certifies the model itself: expected no surrogate"):
        ss.attack("smoothing", small(), *right(small(), 2), [0.1], gradient=gradient, surrogate=small("bp", seed=1))


def test_it_is_no_attack_to_train_with():
    with pytest.raises(ValueError, match="expects an attack that changes images, got 'smoothing'"):
        ss.FineTune(adversarial={"name": "smoothing", "epsilon": 0.5})

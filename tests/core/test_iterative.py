"""BIM, MIM and noise: against Foolbox, a written-out loop, and the distribution that noise has."""

from __future__ import annotations

import foolbox
import pytest
import torch
from targets import right, slope, small
from torch import nn

import signsym_core as ss
from signsym_core import seeds
from signsym_core.attacks.streams import Counted

EPSILONS = [0.0, 0.01, 0.05, 0.2]


@pytest.mark.slow
@pytest.mark.parametrize("source", ["feedback", "exact"])
@pytest.mark.parametrize("parameters", [{}, {"steps": 6}, {"steps": 4, "relative_step": 0.5}])
def test_bim_is_foolboxs_image_by_image(parameters, source):
    model = small("frsf")
    images, labels = right(model)
    their = {"rel_stepsize" if key == "relative_step" else key: value for key, value in parameters.items()}
    theirs = foolbox.attacks.LinfBasicIterativeAttack(**their)
    ours = ss.attack("bim", model, images, labels, EPSILONS, gradient=source, keep=40, **parameters)
    wrapped = foolbox.PyTorchModel(model, bounds=(0, 1), device="cpu")
    with ss.exact_gradient(model) if source == "exact" else torch.enable_grad():
        _, clipped, lost = theirs(wrapped, images, labels, epsilons=EPSILONS)
    assert torch.equal(ours.robust, ~lost)
    assert torch.allclose(ours.adversarial, torch.stack(clipped), atol=1e-6)


@pytest.mark.parametrize(("momentum", "steps"), [(1.0, 10), (0.5, 4), (0.0, 5)])
def test_mim_is_the_papers_loop(momentum, steps):
    # Double precision, so that no sign depends on the order of a sum.
    model = small("bp")
    images, labels = right(model)
    model, images = model.double(), images.double()
    made = ss.attack("mim", model, images, labels, [0.05], keep=40, momentum=momentum, steps=steps).adversarial[0]
    total, current = torch.zeros_like(images), images
    for _ in range(steps):
        gradient = slope(model, current, labels)
        for row in range(len(images)):
            total[row] = momentum * total[row] + gradient[row] / gradient[row].abs().sum()
        current = current + 0.05 / steps * total.sign()
        current = torch.minimum(torch.maximum(current, images - 0.05), images + 0.05).clamp(0, 1)
    assert torch.allclose(made, current, atol=1e-12)


def test_momentum_counts_every_gradient_alike_whatever_its_size():
    class Scaled(nn.Module):
        def __init__(self, model, factor):
            super().__init__()
            self.model, self.factor = model, factor

        def forward(self, x):
            return self.model(x * self.factor + (x * (1 - self.factor)).detach())

    model = small()
    images, labels = right(model)
    one, tenth = (ss.attack("mim", Scaled(model, f), images, labels, [0.05], keep=40) for f in (1.0, 0.125))
    assert torch.equal(one.adversarial, tenth.adversarial)


def test_noise_is_uniform_in_the_ball_and_asks_for_no_gradient():
    model = small()
    images, labels = right(model)
    images = images * 0.5 + 0.25
    outcome = ss.attack("noise", model, images, labels, [0.1], keep=40)
    change = (outcome.adversarial[0] - images).flatten() / 0.1
    assert outcome.backwards == 0
    assert abs(float(change.mean())) < 0.02
    assert float(change.std()) == pytest.approx(3**-0.5, rel=0.02)
    assert -1 <= change.min() < -0.99
    assert 0.99 < change.max() <= 1


def test_more_draws_of_noise_lose_no_fewer_images_and_stop_at_those_that_are_lost():
    model = small()
    images, labels = right(model)
    few, many = (ss.attack("noise", model, images, labels, [0.5], draws=n) for n in (1, 60))
    assert not (many.robust & ~few.robust).any()
    assert many.robust.sum() < few.robust.sum()
    assert many.images_forward < 61 * 40


def test_noise_in_l2_is_uniform_in_the_ball_and_prefers_no_direction():
    """The share of the ball within the radius r ε is r³, and each coordinate of a direction in space is uniform."""
    n, model = 3000, nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    images = torch.full((n, 1, 1, 3), 0.5)
    outcome = ss.attack("noise", model, images, model(images).argmax(1), [0.4], norm="l2", keep=n)
    change = (outcome.adversarial[0] - images).double().flatten(1) / 0.4
    radius = change.norm(dim=1)
    assert (outcome.norm, outcome.backwards) == ("l2", 0)
    assert radius.max() <= 1
    middle = (torch.arange(n) + 0.5) / n
    for uniform in (radius**3, *((change / radius[:, None] + 1) / 2).T):
        # Kolmogorov and Smirnov's distance, above its 0.1 % quantile, 1.95 / √n.
        assert (uniform.sort().values - middle).abs().max() < 2.0 / n**0.5


def test_draws_of_noise_in_l2_are_those_of_a_loop():
    model, epsilon, draws = small(), 3.0, 12
    images, labels = right(model)
    outcome = ss.attack("noise", model, images, labels, [epsilon], norm="l2", draws=draws, seed=5, keep=len(images))
    counted, lost = Counted([seeds.derive(5, "image", place) for place in range(len(images))], images), 0
    for place, (image, label) in enumerate(zip(images, labels, strict=True)):
        moved = []
        for draw in range(draws):
            noise = counted.in_ball(torch.tensor([place]), draw, image.shape)[0]
            moved.append((image + epsilon * noise).clamp(0, 1))
            if broken := bool(model(moved[-1][None]).argmax() != label):
                break
        assert bool(outcome.robust[0, place]) is not broken
        # One that no draw breaks keeps the first.
        assert torch.allclose(outcome.adversarial[0, place], moved[-1 if broken else 0], atol=1e-6)
        lost += broken
    assert 0 < lost < len(images)


@pytest.mark.parametrize(
    ("name", "parameters", "words"),
    [
        ("noise", {"draws": 0}, "'draws' expects a whole number, at least 1"),
        ("mim", {"momentum": -0.1}, "'momentum' expects a number, at least 0"),
        ("bim", {"step_size": 0.1, "relative_step": 0.1}, "null where step_size is given"),
    ],
)
def test_values_out_of_range_are_refused(name, parameters, words):
    with pytest.raises(ValueError, match=words):
        ss.ATTACKS.build(name, **parameters)

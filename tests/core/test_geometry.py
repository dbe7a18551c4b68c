"""The geometry of the loss: closed forms of a linear model, a loop written out, and what it leaves alone."""

from __future__ import annotations

import math

import pytest
import torch
from targets import right, slope, small
from torch import nn

import signsym_core as ss

EPSILON = 0.05


class Linear(nn.Module):
    """Two classes with the logits 0 and <w, x>: L = log(1 + exp(±<w, x>))."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        score = images.flatten(1) @ self.weight
        return torch.stack([torch.zeros_like(score), score], dim=1)


class Straight(nn.Module):
    """Logits whose cross-entropy is linear in the image for the label 0: log p_0 = -<w, x> with w, x > 0."""

    def __init__(self, weight):
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, images):
        loss = images.flatten(1) @ self.weight
        return torch.stack([-loss, torch.log(-torch.expm1(-loss))], dim=1)


def test_a_linear_model_has_the_norms_of_its_weights_and_the_error_of_the_logistic_loss():
    weight = torch.linspace(-1, 1, 12).double() * 3
    images = 0.1 + 0.8 * torch.rand(6, 3, 2, 2, generator=torch.Generator().manual_seed(0)).double()
    labels = torch.tensor([0, 1, 0, 1, 0, 1])
    measured = ss.attack("geometry", Linear(weight), images, labels, [EPSILON], gradient="exact").measured
    score = images.flatten(1) @ weight
    # L = log(1 + exp(s)) for the label 0 and log(1 + exp(-s)) for the label 1; its slope is the other class's p.
    sign = torch.where(labels == 0, 1.0, -1.0).double()
    p_other = torch.sigmoid(sign * score)
    assert torch.allclose(measured["grad_l1"][0], p_other * weight.abs().sum())
    assert torch.allclose(measured["grad_l2"][0], p_other * weight.norm())
    assert torch.allclose(measured["cosine"][0], torch.ones(6).double())
    assert measured["sign_agreement"][0].eq(1).all()
    step = EPSILON * weight.abs().sum()
    rise = nn.functional.softplus(sign * score + step) - nn.functional.softplus(sign * score)
    assert torch.allclose(measured["linearity"][0], (rise - p_other * step).abs())


def test_a_loss_that_is_linear_has_no_error():
    images = 0.2 + 0.6 * torch.rand(5, 1, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    model, labels = Straight(torch.full((9,), 0.3).double()), torch.zeros(5, dtype=torch.long)
    measured = ss.attack("geometry", model, images, labels, [EPSILON], gradient="exact").measured
    assert measured["linearity"][0].max() < 1e-12
    assert torch.allclose(measured["grad_l1"][0], torch.full((5,), 2.7).double())


@pytest.mark.parametrize("rule", ["frsf", "fa"])
def test_numbers_are_those_of_a_loop_over_images(rule):
    model = small(rule).double()
    images, labels = (values[:7] for values in right(small(rule)))
    images = images.double()
    # A pixel at the border of [0, 1] cannot take the whole step.
    images[0, 0, :5] = 1
    epsilons = [0.0, EPSILON, 2 * EPSILON]
    outcome = ss.attack("geometry", model, images, labels, epsilons, gradient="feedback")
    for image in range(7):
        x, y = images[image : image + 1], labels[image : image + 1]
        g = slope(model, x, y)
        with ss.exact_gradient(model):
            exact = slope(model, x, y)
        assert float(outcome.measured["grad_l1"][1, image]) == pytest.approx(float(exact.abs().sum()))
        assert float(outcome.measured["grad_l2"][2, image]) == pytest.approx(float((exact**2).sum().sqrt()))
        cosine = float((g * exact).sum() / (g.norm() * exact.norm()))
        assert float(outcome.measured["cosine"][1, image]) == pytest.approx(cosine)
        alike = sum(
            math.copysign(1, a) == math.copysign(1, b) for a, b in zip(g.flatten(), exact.flatten(), strict=True)
        )
        assert float(outcome.measured["sign_agreement"][1, image]) == pytest.approx(alike / g.numel())
        for row, epsilon in enumerate(epsilons[1:], 1):
            moved = (x + epsilon * exact.sign()).clamp(0, 1)
            with torch.no_grad():
                before, after = (nn.functional.cross_entropy(model(at), y) for at in (x, moved))
            assert float(outcome.measured["rise"][row, image]) == pytest.approx(float(after - before))
            error = abs(float(after - before - ((moved - x) * exact).sum()))
            assert float(outcome.measured["linearity"][row, image]) == pytest.approx(error)
    assert all(values[0].isnan().all() for values in outcome.measured.values())


def test_its_images_are_those_of_fgsm_and_only_the_direction_depends_on_the_source():
    model = small("frsf")
    images, labels = right(model)
    by = {
        gradient: ss.attack("geometry", model, images, labels, [EPSILON], gradient=gradient, keep=9)
        for gradient in ("feedback", "exact", "mixed", "eot")
    }
    for gradient, outcome in by.items():
        fgsm = ss.attack("fgsm", model, images, labels, [EPSILON], gradient=gradient, keep=9)
        assert torch.equal(outcome.adversarial, fgsm.adversarial)
        for name in ("grad_l1", "grad_l2", "rise", "linearity"):
            assert torch.equal(outcome.measured[name], by["exact"].measured[name])
    cosines = {gradient: float(outcome.measured["cosine"].mean()) for gradient, outcome in by.items()}
    assert cosines["exact"] == pytest.approx(1)
    assert cosines["feedback"] < cosines["mixed"] < 1
    assert cosines["eot"] == cosines["feedback"]


def test_an_image_of_a_surrogate_is_not_measured_and_an_image_without_a_gradient_has_no_cosine():
    model, twin = small("frsf"), small("bp", seed=1)
    images, labels = right(model, 5)
    transferred = ss.attack("geometry", model, images, labels, [EPSILON], gradient="transfer", surrogate=twin)
    assert all(values.isnan().all() for values in transferred.measured.values())
    assert ss.attack("fgsm", model, images, labels, [EPSILON]).measured == {}
    # An image without any label has the loss 0.
    none = torch.zeros(5, 5, dtype=torch.uint8)
    none[1:] = nn.functional.one_hot(labels[1:], 5)
    measured = ss.attack("geometry", model, images, none, [EPSILON]).measured
    assert measured["cosine"][0].isnan().tolist() == [True, False, False, False, False]
    assert [float(measured[name][0, 0]) for name in ("grad_l1", "grad_l2", "rise", "linearity")] == [0] * 4


def test_images_that_are_carried_as_lost_are_not_measured_again():
    model = small("bp")
    images, labels = right(model, 6)
    labels[2] = (labels[2] + 1) % 5
    carried = ss.attack("geometry", model, images, labels, [0.0, 0.001], carry=True).measured["grad_l1"]
    assert carried[1].isnan().tolist() == [image == 2 for image in range(6)]

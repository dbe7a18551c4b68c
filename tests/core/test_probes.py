"""Probes: on models whose gradient is known in closed form, and leaving every model as it was found."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import nn

import signsym_core as ss
from signsym_core.auditing.probes import away_from_code, log_odds, measure


class _Scaled(torch.autograd.Function):
    """The identity, whose backward pass multiplies by a factor."""

    @staticmethod
    def forward(ctx, x, factor):
        ctx.factor = factor
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        return ctx.factor * gradient, None


class Lying(nn.Module):
    def __init__(self, model, factor):
        super().__init__()
        self.model, self.factor = model, factor

    def forward(self, images):
        return self.model(_Scaled.apply(images, self.factor))


class Constant(nn.Module):
    def forward(self, images):
        return torch.zeros(len(images), 5, dtype=images.dtype)


class Noisy(nn.Module):
    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, images):
        return self.model(images + 0.1 * torch.rand_like(images))


def network(rule=None, **parameters):
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2), nn.ReLU(), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(72, 5))
    return (model if rule is None else ss.convert(model, rule, **parameters)).eval()


def batch(n=30):
    generator = torch.Generator().manual_seed(1)
    return torch.rand(n, 3, 10, 10, generator=generator), torch.randint(5, (n,), generator=generator)


def test_of_a_true_gradient_every_number_is_one():
    # With so short a step that no kink of a ReLU lies on the way.
    probe = measure(network("bp"), *batch(), step=1e-7)
    for name in ("rho", "direction", "efficiency", "cosine", "norm_ratio", "repeat"):
        assert np.allclose(getattr(probe, name), 1, atol=1e-5), name
    assert not probe.broken.any()
    assert not probe.unsteady.any()


@pytest.mark.slow
@pytest.mark.parametrize("factor", [0.5, 3.0, -1.0])
def test_rho_is_the_factor_by_which_a_backward_pass_lies(factor):
    linear = nn.Sequential(nn.Flatten(), nn.Linear(300, 2))
    images, labels = batch()
    probe = measure(Lying(linear, factor), images, labels % 2)
    # With two classes the log-odds are linear in the logits, and so is everything here.
    assert np.allclose(probe.rho, 1 / factor)
    assert np.allclose(probe.direction, np.sign(factor))
    assert probe.efficiency is probe.cosine is probe.norm_ratio is None


@pytest.mark.parametrize("rule", ["usf", "frsf", "fa"])
def test_a_rules_numbers_are_those_of_its_two_gradients(rule):
    model = network(rule, seed=3)
    images, labels = batch()
    probe = measure(model, images, labels)

    def gradient(exact):
        double, x = copy.deepcopy(model).double(), images.double().requires_grad_()
        if exact:
            ss.revert(double)
        log_odds(double(x), labels).sum().backward()
        return x.grad.flatten(1)

    g, g_exact = gradient(False), gradient(True)
    cosine = torch.cosine_similarity(g, g_exact)
    assert np.allclose(probe.cosine, cosine.numpy())
    assert np.allclose(probe.efficiency, ((g_exact * g.sign()).sum(1) / g_exact.abs().sum(1)).numpy())
    assert np.allclose(probe.norm_ratio, (g.norm(dim=1) / g_exact.norm(dim=1)).numpy())
    assert abs(np.median(probe.direction) - float(cosine.median())) < 0.15
    # Finite differences bear out the exact gradient, where the rule's own is in question.
    assert np.median(probe.exact_direction) > 0.99


def test_the_exact_gradient_of_spikes_is_not_borne_out():
    spiking = ss.BACKBONES.build("snn", width=4, steps=2).build(5, channels=3, size=10, seed=0).eval()
    probe = measure(ss.convert(spiking, "bp"), *batch())
    assert np.allclose(probe.cosine, 1)
    assert np.median(np.nan_to_num(probe.exact_direction)) < 0.9
    assert measure(network("bp"), *batch()).exact_direction is None


def test_a_backward_pass_that_is_drawn_anew_differs_from_itself():
    assert measure(network("brsf", redraw="forward"), *batch()).repeat.max() < 0.999
    assert measure(network("brsf"), *batch()).repeat.min() > 0.999


def test_a_model_without_a_gradient_and_one_with_random_outputs_are_seen():
    images, labels = batch()
    flat = measure(Constant(), images, labels)
    assert flat.broken.all()
    assert (flat.rho == 0).all()
    noisy = measure(Noisy(network()), images, labels)
    assert noisy.unsteady.all()


def test_the_log_odds_do_not_saturate_and_rise_with_the_cross_entropy():
    logits = torch.tensor([[500.0, 0.0, 1.0], [2.0, 1.0, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 2])
    odds = log_odds(logits, labels)
    assert odds[0] == pytest.approx(-500 + np.log(1 + np.e))
    p = logits.softmax(1)[1, 2]
    assert odds[1] == pytest.approx(float(((1 - p) / p).log()))
    several = log_odds(logits, torch.tensor([[1, 0, 1], [0, 1, 1]]))
    p = logits.softmax(1)[1, 1:].sum()
    assert several[1] == pytest.approx(float(((1 - p) / p).log()))


def test_images_without_a_label_are_left_out():
    images, _ = batch(4)
    labels = torch.tensor([[1, 0, 0, 0, 0], [0, 0, 0, 0, 0], [0, 1, 1, 0, 0], [0, 0, 0, 0, 1]])
    assert len(measure(network(), images, labels).rho) == 3
    with pytest.raises(ValueError, match="at least one image with a label"):
        measure(network(), images, torch.zeros(4, 5, dtype=torch.int64))


def test_a_hashing_model_is_probed_by_its_own_code():
    images, labels = batch()
    task = ss.TASKS.build("hashing", bits=5, zeta=0.0)
    assert np.allclose(measure(network("bp"), images, labels, task=task, step=1e-7).rho, 1, atol=1e-5)
    assert np.median(measure(network("frsf"), images, labels, task=task).direction) < 0.95
    assert away_from_code(torch.tensor([[2.0, -1.0]]), torch.tensor([[1.0, -1.0]])) == -3


def test_a_model_is_left_as_it_was_found_and_a_probe_repeats():
    model = network("frsf").train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    images, labels = batch()
    one, other = measure(model, images, labels), measure(model, images, labels)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert all(p.requires_grad and p.grad is None and p.dtype == torch.float32 for p in model.parameters())
    assert (one.rho == other.rho).all()
    assert (one.direction == other.direction).all()


def test_outputs_that_do_not_fit_are_refused():
    images, _ = batch()
    with pytest.raises(ValueError, match=r"labels must be in 0 \.\. 4"):
        measure(network(), images, torch.full((30,), 7))

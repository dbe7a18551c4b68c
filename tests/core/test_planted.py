"""Models that are masked on purpose, or are not and look it, get the verdict that they deserve."""

from __future__ import annotations

import functools
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import signsym_core as ss
from signsym_core.attacks.attacked import NoGradientWarning
from signsym_core.auditing.probes import STEP, measure
from signsym_core.datasets import inputs

pytestmark = pytest.mark.slow

EPSILONS = [0.05, 0.1]


@functools.cache
def digits():
    source = ss.DATASETS.build("digits")
    data = source.load(Path("."))
    train = inputs(data.train.images, source), data.train.labels
    return train, (inputs(data.test.images, source)[:250], data.test.labels[:250])


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Flatten(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))


@functools.cache
def trained(epsilon=0.0, seed=0):
    """A network trained on images as they are, or on those that PGD makes within a radius."""
    (images, labels), _ = digits()
    model = network(seed).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(30 if epsilon else 15):
        for chosen in torch.randperm(len(images), generator=generator).split(64):
            x, y = images[chosen], labels[chosen]
            if epsilon:
                x = x.detach() + epsilon * (2 * torch.rand(x.shape, generator=generator) - 1)
                for _ in range(5):
                    x.requires_grad_()
                    (slope,) = torch.autograd.grad(F.cross_entropy(model(x), y), x)
                    x = x.detach() + 0.5 * epsilon * slope.sign()
                    x = torch.min(torch.max(x, images[chosen] - epsilon), images[chosen] + epsilon).clamp(0, 1)
            optimizer.zero_grad()
            F.cross_entropy(model(x.detach()), y).backward()
            optimizer.step()
    return model.eval()


class Around(nn.Module):
    """A network with something before it and something after it."""

    def __init__(self, before=None, after=None, epsilon=0.0):
        super().__init__()
        self.model, self.before, self.after = trained(epsilon), before, after

    def forward(self, images):
        outputs = self.model(images if self.before is None else self.before(images))
        return outputs if self.after is None else self.after(outputs)


def straight_through(function):
    return lambda x: x + (function(x) - x).detach()


def grey(levels):
    return lambda x: (x * (levels - 1)).round() / (levels - 1)


def in_numpy(x):
    """8 bits, by numpy and in single precision, as a JPEG is."""
    return torch.from_numpy((x.detach().cpu().numpy() * 255).round().astype(np.uint8)).float() / 255


def shattered(x):
    """A ripple too small to be seen, whose slope hides that of the network."""
    return x + 2e-3 * torch.sin(2e5 * x)


def random_ripple(x):
    """A ripple of another phase in every pass: one gradient is noise, the mean of many is that of the network."""
    return x + 1e-2 * torch.sin(2e3 * x + 2 * torch.pi * torch.rand_like(x))


def random_levels(x):
    """16 grey levels, rounded up or down by chance, so that their mean is the image."""
    return (x * 15 + torch.rand_like(x)).floor() / 15


def jitter(size):
    return lambda outputs: outputs + size * torch.randn_like(outputs)


def noisy(size):
    return lambda x: x + size * torch.randn_like(x)


def one_class(outputs):
    return outputs * 0 + F.one_hot(torch.tensor(3), 10).to(outputs)


#: The model, and the verdict.
PLANTED = {
    "trained": (lambda: Around(), "sound"),
    "adversarially trained": (lambda: Around(epsilon=0.1), "sound"),
    "robust, 8 bits straight through": (lambda: Around(straight_through(grey(256)), epsilon=0.1), "sound"),
    "robust, 16 levels straight through": (lambda: Around(straight_through(grey(16)), epsilon=0.1), "sound"),
    "robust, jitter 1e-6": (lambda: Around(after=jitter(1e-6), epsilon=0.1), "sound"),
    "robust, jitter 1e-3": (lambda: Around(after=jitter(1e-3), epsilon=0.1), "sound"),
    "robust, cut off": (lambda: Around(lambda x: x.clamp(0, 1), epsilon=0.1), "sound"),
    "robust, some noise": (lambda: Around(noisy(0.02), epsilon=0.1), "sound"),
    "rounded": (lambda: Around(grey(16)), "masked gradient"),
    "8 bits": (lambda: Around(grey(256)), "masked gradient"),
    "logits times 1000": (lambda: Around(after=lambda outputs: 1000 * outputs), "masked gradient"),
    "detached": (lambda: Around(lambda x: x.detach()), "masked gradient"),
    "numpy": (lambda: Around(in_numpy), "masked gradient"),
    "argmax": (lambda: Around(after=lambda o: F.one_hot(o.argmax(1), 10).to(o)), "masked gradient"),
    "shattered": (lambda: Around(shattered), "masked gradient"),
    "ripple of a random phase": (lambda: Around(random_ripple), "masked gradient"),
    "rounded by chance": (lambda: Around(random_levels), "masked gradient"),
    "a wrong way back": (lambda: Around(lambda x: Backward.apply(x)), "masked gradient"),
    "one class": (lambda: Around(after=one_class), "undecided"),
    "untrained": (network, "undecided"),
}


class Backward(torch.autograd.Function):
    """The identity; its backward pass turns most of the gradient round."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, gradient):
        signs = torch.where(torch.arange(gradient[0].numel()) % 3 > 0, -1.0, 1.0).view(gradient[0].shape)
        return gradient * signs


@pytest.mark.parametrize("name", PLANTED)
def test_a_planted_model_gets_its_verdict(name):
    make, kind = PLANTED[name]
    _, (images, labels) = digits()
    torch.manual_seed(0)
    verdict = ss.audit(make(), images, labels, EPSILONS, queries=200)
    assert verdict.kind == kind, verdict.words


@pytest.mark.parametrize("count", [1, 5, 29, 60])
def test_of_too_few_images_nothing_is_said(count):
    _, (images, labels) = digits()
    verdict = ss.audit(trained(), images[:count], labels[:count], EPSILONS, queries=5)
    assert verdict.kind == "undecided"
    assert f"too few images ({count}; at least 80)" in verdict.words


def test_at_chance_the_reason_is_said():
    _, (images, labels) = digits()
    words = ss.audit(Around(after=one_class), images, labels, EPSILONS, queries=5).words
    assert words.startswith("undecided: no verdict on robustness: clean accuracy 10.0 % is not above chance")


def test_a_sign_that_no_attack_bears_out_is_no_verdict():
    """A wrong way back that loses nothing here, since everything is lost already at this radius."""
    _, (images, labels) = digits()
    twin = ss.convert(network(), "bp")
    twin.load_state_dict(trained().state_dict(), strict=False)
    verdict = ss.audit(Around(Backward.apply), images[:100], labels[:100], [0.01], twin=twin.eval())
    assert verdict.kind == "undecided"
    assert "raised, but no attack that was run breaks more" in verdict.words


def test_the_quantum_of_a_model_is_found():
    (images, labels), _ = digits()
    for levels, step in ((256, 1 / 255), (11, 1 / 10)):
        probe = measure(Around(straight_through(grey(levels))), images[:100], labels[:100])
        assert probe.step == pytest.approx(step)
        assert np.median(probe.direction) > 0.95
    assert measure(trained(), images[:100], labels[:100]).step == STEP


def test_an_attack_along_no_gradient_says_so_and_goes_on():
    _, (images, labels) = digits()
    with pytest.warns(NoGradientWarning, match="gives no gradient"):
        outcome = ss.attack("fgsm", Around(lambda x: x.detach()), images, labels, [0.1])
    assert outcome.zero_gradient.all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ss.audit(Around(lambda x: x.detach()), images[:30], labels[:30], [0.1], queries=5)

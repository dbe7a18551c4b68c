"""A training that diverged fails, names the first layer, and leaves nothing that counts as done."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.optim.optimizer import register_optimizer_step_post_hook

import signsym_core as ss
from signsym_core.backbones import Model
from signsym_core.training.health import (
    Health,
    NonFiniteGradientError,
    NonFiniteLossError,
    NonFiniteWeightsError,
    broken_layers,
    refuse_broken,
)

TASK = ss.TASKS.build("classification")
SOURCE = ss.DATASETS.build("digits", train_images=48, test_images=20, classes=[0, 1, 2])
DATA = SOURCE.load(Path())
DIVERGED = (NonFiniteGradientError, NonFiniteLossError, NonFiniteWeightsError)


class Net(nn.Module):
    def __init__(self, mask=0.0):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.fc = nn.Linear(6 * 36, 3)
        self.register_buffer("mask", torch.full((2,), mask))

    def forward(self, images):
        return self.fc(self.norm(self.conv(images)).relu().flatten(1))


class Plain(nn.Module):
    """Without normalisation."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.fc = nn.Linear(6 * 36, 3)

    def forward(self, images):
        return self.fc(self.conv(images).relu().flatten(1))


def built(network, rule="usf"):
    torch.manual_seed(0)
    return ss.convert(Model(network, "fc", (0.5,), (0.5,)), rule, seed=5)


def train(model, lr=1e-3, epochs=1, batch_size=16, **more):
    settings = ss.FineTune(epochs=epochs, batch_size=batch_size, lr=lr, head_lr=lr)
    return ss.fine_tune(model, DATA.train, SOURCE, TASK, settings, seed=1, **more)


@pytest.mark.parametrize("batch_size", [16, 48])
@pytest.mark.parametrize("lr", [1e38, 1e30, 1e19])
@pytest.mark.parametrize("network", [Net, Plain])
def test_a_learning_rate_that_blows_the_weights_up_fails(network, lr, batch_size):
    """With one step (48 of 48 images) the weights themselves may still be finite: what they give is not."""
    checkpoints = []
    with pytest.raises(DIVERGED, match="network"):
        train(built(network()), lr, batch_size=batch_size, epochs=2, on_epoch=checkpoints.append)
    for checkpoint in checkpoints:
        assert all(tensor.isfinite().all() for tensor in checkpoint.tensors.values() if tensor.is_floating_point())


def test_a_healthy_training_passes_and_its_masks_may_be_infinite():
    assert train(built(Net(mask=-math.inf)), epochs=2)[-1]["loss"] < 10


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("conv.weight", "network.conv.weight"),
        ("norm.running_var", "network.norm.running_var"),
        ("norm.running_mean", "network.norm.running_mean"),
        ("mask", "network.mask"),
        ("fc.bias", "network.fc.bias"),
    ],
)
def test_what_is_not_finite_after_the_last_step_is_named_before_a_checkpoint_is_written(name, first, value):
    """It is put there by the last of three steps, so that no gradient is ever touched by it."""
    model, steps, checkpoints = built(Net()), [], []
    tensor = dict([*model.network.named_parameters(), *model.network.named_buffers()])[name]

    def spoil(*_):
        steps.append(1)
        if len(steps) == 3:
            with torch.no_grad():
                tensor.view(-1)[0] = value

    with spoiling(spoil), pytest.raises(NonFiniteWeightsError, match=rf"'{first}' is not finite after epoch 1 \(1 of"):
        train(model, on_epoch=checkpoints.append)
    assert not checkpoints


def spoiling(hook):
    """Call `hook` after each step of any optimiser."""
    return register_optimizer_step_post_hook(hook)


def test_the_first_layer_is_the_first_in_the_network():
    model, steps = built(Net()), []

    def spoil(*_):
        steps.append(1)
        if len(steps) == 3:
            with torch.no_grad():
                model.network.fc.weight.fill_(math.nan)
                model.network.norm.running_var.fill_(math.inf)

    with spoiling(spoil), pytest.raises(NonFiniteWeightsError, match=r"'network.norm.running_var' .* \(2 of 11"):
        train(model)


def test_an_infinite_moment_of_the_optimiser_is_named():
    model, steps = built(Net()), []

    def spoil(optimizer, *_):
        steps.append(1)
        if len(steps) == 3:
            optimizer.state[model.network.fc.weight]["exp_avg_sq"].fill_(math.inf)

    with spoiling(spoil), pytest.raises(NonFiniteWeightsError, match=r"'exp_avg_sq of network.fc.weight'"):
        train(model)


def test_weights_that_are_broken_before_the_first_step_are_refused():
    model = built(Net())
    with torch.no_grad():
        model.network.conv.weight[0] = math.inf
    for epochs in (0, 1):
        with pytest.raises(NonFiniteWeightsError, match=r"'network.conv.weight' is not finite before the first step"):
            train(model, epochs=epochs)


def test_a_loss_that_is_not_finite_stops_the_run():
    class Endless(nn.Module):
        """A huge logit difference: the loss is infinite, its gradient is not."""

        def forward(self, outputs, labels):
            return nn.functional.cross_entropy(outputs, labels) + torch.tensor(math.inf)

    class Odd(type(TASK)):
        def objective(self, classes, seed):
            return Endless()

    settings = ss.FineTune(epochs=1, batch_size=16)
    with pytest.raises(NonFiniteLossError, match="inf in epoch 1, step 1"):
        ss.fine_tune(built(Net()), DATA.train, SOURCE, Odd(), settings, seed=0)


@pytest.mark.parametrize("name", ["conv.weight", "norm.running_var"])
def test_a_model_with_broken_weights_or_statistics_is_told_apart(name):
    model = Net(mask=-math.inf)
    assert broken_layers(model) == []
    refuse_broken(model)
    with torch.no_grad():
        {**dict(model.named_parameters()), **dict(model.named_buffers())}[name].view(-1)[-1] = math.inf
    assert broken_layers(model) == [name]
    with pytest.raises(NonFiniteWeightsError, match=f"the twin holds NaN or infinity in '{name}'"):
        refuse_broken(model, "the twin")


def test_looking_is_rare():
    """The host waits for the device once in so many steps, not at each."""
    model = built(Net())
    health = Health(model, TASK.objective(3, 0), torch.optim.Adam(model.parameters()))
    looks = []
    health._send = lambda: looks.append(1)
    for step in range(1, 101):
        health.watch(0, step, torch.tensor(0.0), torch.ones(len(health.parameters)))
    assert len(looks) == 5

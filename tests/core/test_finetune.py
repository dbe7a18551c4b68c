"""The fine-tune loop: goes on with the same numbers, treats head and body apart, stops on a broken gradient."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

import signsym_core as ss
from signsym_core.alignment import layer_alignment
from signsym_core.backbones import Model
from signsym_core.finetune import NonFiniteGradientError

TASK = ss.TASKS.build("classification")
SOURCE = ss.DATASETS.build("digits", train_images=50, test_images=20, classes=[0, 1, 2])
DATA = SOURCE.load(Path())


class Dropped(nn.Module):
    """A network with dropout, which draws from the global generator."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(1, 6, 3)
        self.norm = nn.BatchNorm2d(6)
        self.drop = nn.Dropout(0.5)
        self.fc = nn.Linear(6 * 36, 3)

    def forward(self, x):
        return self.fc(self.drop(self.norm(self.conv(x)).relu().flatten(1)))


def model(rule="usf", **parameters):
    torch.manual_seed(0)
    return ss.convert(Model(Dropped(), "fc", (0.5,), (0.5,)), rule, seed=5, **parameters)


def train(network, epochs=3, seed=1, **more):
    settings = ss.FineTune(epochs=epochs, batch_size=16, lr=1e-3, head_lr=1e-2, **more.pop("settings", {}))
    return ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=seed, **more)


def same(one, other):
    return all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


@pytest.mark.parametrize("rule", ss.RULES.names)
def test_going_on_from_any_epoch_gives_the_numbers_of_an_undisturbed_run(rule):
    undisturbed, checkpoints = model(rule), []
    history = train(undisturbed, on_epoch=checkpoints.append)
    for checkpoint in checkpoints[:-1]:
        resumed = model(rule)
        torch.rand(17)  # whatever happened in between
        again = train(resumed, resume=checkpoint)
        assert same(resumed, undisturbed)
        assert [row["loss"] for row in again] == [row["loss"] for row in history]


def test_training_learns_and_depends_on_the_seed_alone():
    one, other, third = model(), model(), model()
    first, last = (row["loss"] for row in (train(one, epochs=8)[0], train(other, epochs=8)[-1]))
    assert last < first / 2
    assert same(one, other)
    train(third, epochs=8, seed=2)
    assert not same(one, third)


def test_the_global_generator_is_left_alone():
    network = model()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(network)
    assert torch.equal(torch.rand(3), expected)


def test_head_and_body_have_their_own_rates():
    network = model("bp")
    before = copy.deepcopy(network.state_dict())
    settings = ss.FineTune(epochs=1, batch_size=16, lr=0, head_lr=1e-2, weight_decay=0)
    ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=0)
    assert torch.equal(network.network.conv.weight, before["network.conv.weight"])
    assert not torch.equal(network.network.fc.weight, before["network.fc.weight"])
    assert not torch.equal(network.network.norm.running_mean, before["network.norm.running_mean"])


def test_no_epochs_leave_the_weights_alone():
    network = model()
    before = copy.deepcopy(network)
    assert train(network, epochs=0) == []
    assert same(network, before)


@pytest.mark.parametrize("rule", ss.RULES.names)
def test_logging_alignment_changes_no_number(rule):
    plain, logged = model(rule), model(rule)
    train(plain)
    history = train(logged, settings={"log_alignment": 2})
    assert same(plain, logged)
    rows = [row for row in history if "layer" in row]
    assert {row["layer"] for row in rows} == {"network.conv", "network.fc"}
    assert all(math.isfinite(row["norm"]) for row in rows)
    # The head's own weight gradient does not pass through any feedback.
    assert all(row["cosine"] == pytest.approx(1) for row in rows if row["layer"] == "network.fc")


def test_alignment_of_bp_is_perfect_and_of_fa_is_not():
    images, labels = torch.rand(20, 1, 8, 8), torch.arange(20) % 3
    for rule, perfect in (("bp", True), ("fa", False)):
        conv = layer_alignment(model(rule), TASK, images, labels)[0]
        assert (conv.cosine == pytest.approx(1)) == perfect
        assert (conv.sign_agreement == 1) == perfect
        assert (conv.norm == pytest.approx(conv.norm_bp)) == perfect


def test_a_gradient_that_is_not_finite_stops_the_run_and_names_layer_and_step():
    network = model("bp")
    calls = []

    def poison(gradient):
        calls.append(1)
        return gradient * math.inf if len(calls) == 3 else gradient

    network.network.conv.weight.register_hook(poison)
    with pytest.raises(NonFiniteGradientError, match=r"'network\.conv\.weight' is not finite in epoch 1, step 3"):
        train(network)


def test_an_unscaled_rule_that_overflows_is_caught():
    torch.manual_seed(0)
    deep = [layer for _ in range(40) for layer in (nn.Conv2d(64, 64, 3, padding=1), nn.ReLU())]
    body = nn.Sequential(nn.Conv2d(1, 64, 3, padding=1), *deep, nn.Flatten(), nn.Linear(64 * 64, 3))
    network = ss.convert(Model(body, "82", (0.5,), (0.5,)), "usf", scale="unit")
    with pytest.raises(NonFiniteGradientError, match="scale may be too large"):
        train(network, epochs=1)


def test_a_layer_that_the_network_goes_around_is_refused_by_name():
    class Around(Dropped):
        def forward(self, x):
            hidden = nn.functional.conv2d(x, self.conv.weight, self.conv.bias)
            return self.fc(self.norm(hidden).relu().flatten(1))

    network = ss.convert(Model(Around(), "fc", (0.5,), (0.5,)), "usf")
    with pytest.raises(ValueError, match=r"network\.conv.*bp_layers"):
        train(network)

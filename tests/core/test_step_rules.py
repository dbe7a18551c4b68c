"""Rules that are a step: a fine-tune calls it in the place of the backward pass, attacks follow the exact gradient."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn
from torchvision import models

import signsym_core as ss
from signsym_core.arithmetic import arithmetic
from signsym_core.attacks import GRADIENTS
from signsym_core.backbones import Model
from signsym_core.microbatch import backward
from signsym_core.registry import ParameterError
from signsym_core.rules.convert import stepping_rule
from signsym_core.rules.whole import StepRule, add_gradient
from signsym_core.testing import check_rule
from signsym_core.training.alignment import layer_alignment

TASK = ss.TASKS.build("classification")
SOURCE = ss.DATASETS.build("digits", train_images=50, test_images=20, classes=[0, 1, 2])
DATA = SOURCE.load(Path())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Scaled(StepRule):
    """The gradient times `factor`, by a step."""

    name, label, citation = "scaled", "scaled", "a test"

    factor: float = 1.0

    def step(self, model, objective, images, labels, micro_batch):
        seen.append((len(images), micro_batch))
        loss = backward(model, objective, images, labels, micro_batch)
        for parameter in model.parameters():
            parameter.grad.mul_(self.factor)
        return loss


seen: list[tuple[int, int | None]] = []


def model(rule):
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 8), nn.ReLU(), nn.Linear(8, 3))
    return ss.convert(Model(network, "3", (0.5,), (0.5,)), rule, seed=5)


def trained(rule, micro_batch=None):
    network = model(rule)
    seen.clear()
    settings = ss.FineTune(epochs=2, batch_size=16, lr=1e-3, head_lr=1e-2)
    history = ss.fine_tune(network, DATA.train, SOURCE, TASK, settings, seed=1, micro_batch=micro_batch)
    return torch.cat([parameter.detach().flatten() for parameter in network.parameters()]), history


@pytest.mark.parametrize("micro_batch", [None, 5])
def test_a_fine_tune_calls_the_step_of_its_rule_once_for_each_update(micro_batch):
    by_step, history = trained(Scaled(), micro_batch)
    assert seen == 2 * [(16, micro_batch), (16, micro_batch), (16, micro_batch), (2, micro_batch)]
    by_backward, expected = trained("bp", micro_batch)
    assert not seen
    assert torch.equal(by_step, by_backward)
    assert [row["loss"] for row in history] == [row["loss"] for row in expected]
    # The gradients are those that the step left, not those of a backward pass beside it.
    assert not torch.equal(trained(Scaled(factor=-1.0), micro_batch)[0], by_backward)


def test_alignment_is_that_of_the_step_and_leaves_the_gradients_alone():
    network, images = model(Scaled(factor=-3.0)), torch.rand(9, 1, 8, 8)
    labels, objective = torch.arange(9) % 3, TASK.objective(3, 0)
    network(images).sum().backward()
    before = [parameter.grad.clone() for parameter in network.parameters()]
    rows = layer_alignment(network, objective, images, labels)
    assert [row.cosine for row in rows] == pytest.approx([-1, -1])
    assert [row.norm / row.norm_bp for row in rows] == pytest.approx([3, 3])
    assert all(torch.equal(p.grad, kept) for p, kept in zip(network.parameters(), before, strict=True))


def test_the_feedback_of_a_step_rule_is_computed_and_labelled_as_the_exact_gradient():
    assert {name: source.computed(Scaled()) for name, source in GRADIENTS.items()} == {
        "feedback": "exact",
        "exact": "exact",
        "mixed": "exact",
        "eot": "exact",
        # Its BP twin is another model.
        "transfer": "transfer",
        "hybrid": "hybrid",
    }
    assert GRADIENTS["transfer"].computed(ss.RULES.build("bp")) == "exact"


def test_a_rule_of_the_whole_network_takes_no_layers_from_it():
    with pytest.raises(ParameterError, match=r"'bp_layers' expects nothing.*'scaled' serves no single layers"):
        Scaled(bp_layers=("head",))


def test_a_gradient_by_hand_lies_in_memory_as_its_parameter_does():
    given = torch.randn(3, 4).t()
    updated = []
    for by_hand in (lambda p: add_gradient(p, given), lambda p: setattr(p, "grad", given)):
        parameter = nn.Parameter(torch.zeros(4, 3))
        by_hand(parameter)
        torch.optim.SGD([parameter], lr=1.0, fused=True).step()
        updated.append(torch.equal(parameter.detach(), -given))
    # The second shows what the first is for: if torch ever reads strides, it can go.
    assert updated == [True, False]
    with pytest.raises(ValueError, match=r"expected a gradient of shape \[4, 3\], got \[3, 4\]"):
        add_gradient(parameter, torch.zeros(3, 4))


def test_pepita_is_two_forward_passes_written_out():
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))
    ss.convert(network, "pepita", seed=2, strength=20.0)
    images, labels = torch.rand(5, 3, 2, 2), torch.arange(5) % 3
    rule = stepping_rule(network)
    loss = rule.step(network, TASK.objective(3, 0), images, labels, None)
    x, weights = images.flatten(1), [network[place] for place in (1, 3, 5)]
    target = nn.functional.one_hot(labels, 3).float()
    passes = []
    with torch.no_grad():
        for _ in range(2):
            h1 = torch.tanh(x @ weights[0].weight.t() + weights[0].bias)
            h2 = torch.relu(h1 @ weights[1].weight.t() + weights[1].bias)
            error = torch.softmax(h2 @ weights[2].weight.t() + weights[2].bias, dim=1) - target
            passes.append((x, h1, h2, error))
            x = x + error @ rule._matrix(network, images, error)
        (_, h1, h2, error), (x, moved1, moved2, moved_error) = passes
        deltas = [(h1 - moved1, x), (h2 - moved2, moved1), (moved_error, moved2)]
        for layer, (delta, entered) in zip(weights, deltas, strict=True):
            assert torch.allclose(layer.weight.grad, delta.t() @ entered / 5, rtol=1e-4, atol=1e-5)
            assert torch.allclose(layer.bias.grad, delta.sum(dim=0) / 5, rtol=1e-4, atol=1e-5)
    assert float(loss) == pytest.approx(float(-(error + target).gather(1, labels[:, None]).log().mean()))


def test_pepita_moves_convolutions_by_the_same_products_and_shows_both_passes_one_mask():
    torch.manual_seed(0)
    network = nn.Sequential(
        nn.Conv2d(1, 4, 3, stride=2), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Flatten()
    )
    network.append(nn.Linear(36, 3))
    ss.convert(network, "pepita", seed=2, strength=1e-12)
    images, labels = torch.rand(5, 1, 8, 8), torch.arange(5) % 3
    stepping_rule(network).step(network, TASK.objective(3, 0), images, labels, None)
    # With an input that hardly moves, equal masks leave only rounding between the two passes.
    assert network[0].weight.grad.abs().max() < 1e-5
    assert network[5].weight.grad.abs().max() > 1e-3
    assert network[1].weight.grad is None


def test_pepita_in_bf16_is_pepita_rounded():
    torch.manual_seed(0)
    network = ss.convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)), "pepita", seed=2)
    images, labels, gradients = torch.rand(50, 1, 8, 8), torch.arange(50) % 3, {}
    for precision in ("float32", "bf16"):
        network.zero_grad()
        with arithmetic(precision, True, images.device, network):
            stepping_rule(network).step(network, TASK.objective(3, 0), images, labels, None)
        gradients[precision] = [parameter.grad for parameter in network.parameters()]
    for gradient, low in zip(gradients["float32"], gradients["bf16"], strict=True):
        assert low.dtype == torch.float32
        assert not torch.equal(gradient, low)
        assert torch.cosine_similarity(gradient.flatten(), low.flatten(), dim=0) > 0.9


def test_pepita_leaves_frozen_layers_out():
    torch.manual_seed(0)
    network = ss.convert(nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 3)), "pepita", seed=2)
    images, labels, gradients = torch.rand(50, 1, 8, 8), torch.arange(50) % 3, []
    for frozen in (False, True):
        network.zero_grad()
        network[1].requires_grad_(not frozen)
        stepping_rule(network).step(network, TASK.objective(3, 0), images, labels, None)
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert gradients[1][:2] == [None, None]
    assert all(torch.equal(one, other) for one, other in zip(gradients[0][2:], gradients[1][2:], strict=True))


def test_pepita_refuses_networks_in_which_a_layer_has_no_activity_of_its_own():
    with pytest.raises(ParameterError, match=r"expects a plain network.*got 'layer1.0', a residual block"):
        ss.convert(models.resnet18(), "pepita")

    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Linear(4, 4)

        def forward(self, x):
            return self.layer(self.layer(x))

    network = ss.convert(Twice(), "pepita")
    with pytest.raises(ValueError, match=r"outputs \[2, 4\] are those of its last layer, called once; .* from 2 calls"):
        stepping_rule(network).step(network, TASK.objective(4, 0), torch.rand(2, 4), torch.tensor([0, 1]), None)


class Written(nn.Module):
    """A network whose activation or flattening stands in its forward method."""

    def __init__(self, relu=None):
        super().__init__()
        self.first, self.relu, self.last = nn.Conv2d(2, 4, 3), relu, nn.Linear(16, 3)

    def forward(self, x):
        return self.last(torch.flatten((self.relu or nn.functional.relu)(self.first(x)), 1))


def test_pepita_refuses_an_activity_that_no_module_makes():
    # Its layers would be taught by sums before the activation.
    network = ss.convert(Written(), "pepita")
    images, labels = torch.rand(5, 2, 4, 4), torch.arange(5) % 3
    with pytest.raises(ValueError, match=r"after layer 'first', what enters 'last' is of no module: F.relu"):
        stepping_rule(network).step(network, TASK.objective(3, 0), images, labels, None)
    recurrent = ss.convert(ss.BACKBONES.build("rnn").build(3, channels=1, size=(4, 2)), "pepita")
    with pytest.raises(ValueError, match=r"of no module.*a recurrence"):
        stepping_rule(recurrent).step(recurrent, TASK.objective(3, 0), images[:, :1, :, :2], labels, None)
    # A flattened copy is the activity all the same.
    gradients = []
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        network = ss.convert(Written(nn.ReLU()), "pepita").to(memory_format=memory_format)
        moved = images.to(memory_format=memory_format)
        stepping_rule(network).step(network, TASK.objective(3, 0), moved, labels, None)
        gradients.append(network.first.weight.grad)
    assert torch.allclose(*gradients, atol=1e-7)
    assert gradients[0].any()


def test_the_suite_fails_wrong_steps():
    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Uphill(Scaled):
        """Up the loss."""

        factor: float = -1.0

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Transposed(Scaled):
        """Gradients in another memory order."""

        def step(self, model, objective, images, labels, micro_batch):
            loss = super().step(model, objective, images, labels, micro_batch)
            for parameter in model.parameters():
                if parameter.ndim == 2:
                    parameter.grad = parameter.grad.t().contiguous().t()
            return loss

    @dataclasses.dataclass(frozen=True, kw_only=True)
    class Pushing(Scaled):
        """Moves the weights itself."""

        def step(self, model, objective, images, labels, micro_batch):
            loss = super().step(model, objective, images, labels, micro_batch)
            with torch.no_grad():
                for parameter in model.parameters():
                    parameter.sub_(0.1 * parameter.grad)
            return loss

    check_rule(Scaled())
    for rule, message in ((Uphill(), "lower the loss"), (Transposed(), "memory order"), (Pushing(), "optimiser")):
        with pytest.raises(AssertionError, match=message):
            check_rule(rule)

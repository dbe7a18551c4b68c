"""Rules that are a step: a fine-tune calls it in the place of the backward pass, attacks follow the exact gradient."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

import signsym_core as ss
from signsym_core.alignment import layer_alignment
from signsym_core.attacks import GRADIENTS
from signsym_core.backbones import Model
from signsym_core.microbatch import backward
from signsym_core.registry import ParameterError
from signsym_core.rules.whole import StepRule, add_gradient

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
        "eot": "exact",
        # Its BP twin is another model.
        "transfer": "transfer",
        "hybrid": "hybrid",
        "mixed": "exact",
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

"""The optimisers of a fine-tune: torch's own updates, hooks and states, without torch's compiler."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from signsym_core.training.optimizers import eager

KINDS = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW, "sgd": torch.optim.SGD}


def _trained(kind, *, steps=3, resumed_at=None):
    torch.manual_seed(0)
    model = torch.nn.Linear(5, 3)
    build = lambda: kind(model.parameters(), lr=0.1, weight_decay=0.01)  # noqa: E731
    optimizer = build()
    for step in range(steps):
        if step == resumed_at:
            state = optimizer.state_dict()
            optimizer = build()
            optimizer.load_state_dict(state)
        optimizer.zero_grad(set_to_none=True)
        model(torch.arange(10.0).reshape(2, 5)).square().sum().backward()
        optimizer.step()
    return model.weight.detach(), optimizer


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("resumed_at", [None, 2])
def test_updates_equal_those_of_the_class_it_comes_from(name, resumed_at):
    weight, optimizer = _trained(eager(KINDS[name]), resumed_at=resumed_at)
    expected, _ = _trained(KINDS[name])
    assert torch.equal(weight, expected)
    assert isinstance(optimizer, KINDS[name])
    assert type(optimizer).__name__ == KINDS[name].__name__


def test_hooks_are_called_and_a_step_leaves_gradients_recorded():
    calls = []
    _, optimizer = _trained(eager(torch.optim.Adam), steps=1)
    optimizer.register_step_pre_hook(lambda *_: calls.append("before"))
    optimizer.register_step_post_hook(lambda *_: calls.append("after"))
    optimizer.step()
    assert calls == ["before", "after"]
    assert torch.is_grad_enabled()


@pytest.mark.slow
def test_neither_a_fine_tune_nor_an_attack_imports_the_compiler():
    """A worker would pay more than two seconds for it."""
    code = """
import sys, torch, signsym_core as ss
from signsym_core.datasets import Split
images = torch.zeros(8, 1, 8, 8, dtype=torch.uint8)
train = Split(images=images, labels=torch.arange(8) % 2, indices=torch.arange(8))
source, task = ss.DATASETS.build("digits"), ss.TASKS.build("classification")
model = ss.convert(ss.BACKBONES.build("smallcnn", width=2).build(task.outputs(2), channels=1), "brsf")
ss.fine_tune(model, train, source, task, ss.FineTune(epochs=1, batch_size=4), seed=0)
ss.attack("pgd", model.eval(), images / 255, train.labels, [0.1])
ss.BACKBONES.build("resnet18").build(2)
from orchestrator.plan.rates import network_of
network_of(ss.BACKBONES.build("alexnet"), (64, 64))
assert "torch._dynamo" not in sys.modules
# Where torchvision asks whether it may compile, the compiler answers.
from torchvision.ops import roi_align
torch.use_deterministic_algorithms(True)
assert roi_align(torch.ones(1, 1, 4, 4), [torch.tensor([[0.0, 0, 4, 4]])], 2).flatten().tolist() == [1] * 4
assert "torch._dynamo" in sys.modules
double = torch.compile(lambda numbers: 2 * numbers, backend="eager")
assert double(torch.ones(2)).tolist() == [2, 2]
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0

"""No tensor of the host meets those of a device, on a device that a CPU plays."""

from __future__ import annotations

import pytest
import torch
from devices import Devices
from targets import QUICK, right, small
from torch import nn

import signsym_core as ss
from signsym_core.attacks import ATTACKS, GRADIENTS
from signsym_core.datasets import Split
from signsym_core.rules import RULES

CLASSIFYING = [attack.name for attack in ATTACKS if "classification" in attack.tasks]


def mixed(name, rule="brsf", images=6, **more):
    """What an attack mixes on a converted model with all its tensors on a device."""
    model, devices = small(rule), Devices()
    pixels, labels = right(model, images)
    surrogate = more.get("surrogate")
    devices.on_device(model, pixels, labels, *([] if surrogate is None else [surrogate]))
    with devices:
        ss.attack(name, model, pixels, labels, [0.0, 0.02, 0.3], **more)
    return devices.mixed


@pytest.mark.filterwarnings("ignore::signsym_core.evaluation.attack.WeakAttackWarning")
@pytest.mark.parametrize("name", CLASSIFYING)
def test_attacks_keep_to_the_device(name):
    assert mixed(name, **QUICK.get(name, {})) == []
    if "norm" in ATTACKS[name].__dataclass_fields__:
        assert mixed(name, **QUICK.get(name, {}), norm="l2", carry=True) == []


@pytest.mark.parametrize("gradient", list(GRADIENTS))
def test_sources_of_gradients_keep_to_the_device(gradient):
    surrogate = small("bp", seed=1) if GRADIENTS[gradient].twin else None
    assert mixed("pgd", steps=2, gradient=gradient, surrogate=surrogate) == []


@pytest.mark.parametrize("rule", [rule.name for rule in RULES if rule.name != "mixed"])
def test_trainings_keep_to_the_device(rule):
    random = torch.Generator().manual_seed(0)
    images = torch.randint(256, (24, 3, 8, 8), dtype=torch.uint8, generator=random)
    train = Split(images=images, labels=torch.arange(24) % 5, indices=torch.arange(24))
    source, task = ss.DATASETS.build("cifar10"), ss.TASKS.build("classification")
    # LRA trains this one alone.
    backbone = ss.BACKBONES.build("rnn", hidden=6) if rule == "lra" else ss.BACKBONES.build("smallcnn", width=4)
    model, devices = ss.convert(backbone.build(5, channels=3, size=8), rule), Devices()
    devices.on_device(model, train.images, train.labels)
    settings = ss.FineTune(epochs=2, batch_size=8, lr=1e-3, head_lr=1e-3, weight_decay=0.0, log_alignment=2)
    with devices:
        ss.fine_tune(model, train, source, task, settings, seed=0, alignment=[])
    assert devices.mixed == []


def test_a_tensor_of_the_host_is_seen():
    class Careless(nn.Module):
        def forward(self, images):
            return images.flatten(1)[:, :5] * torch.arange(5)

    model, devices = Careless(), Devices()
    images, labels = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    devices.on_device(images, labels)
    with devices:
        ss.attack("none", model, images, labels, [0.0])
    assert [line.partition(" at ")[0] for line in devices.mixed] == ["mul"]
    with devices:
        images.argmax(dim=1).numpy()
        images[torch.arange(2)] + images.cpu()[:2].to(images.device)
    assert [line.partition(" at ")[0] for line in devices.mixed] == ["mul", "numpy"]

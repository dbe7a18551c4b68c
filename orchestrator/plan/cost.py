"""How long a job takes before a similar one was measured: stated defaults, from the arithmetic that it needs.

A training step costs three forward passes, and so does a step of an attack; a forward pass costs the backbone's
multiply-adds at 224 x 224 pixels, in proportion to the pixels. The speeds below are stated, not measured: they tell
whether a grid takes hours or weeks, not whether it takes four hours or five.
"""

from __future__ import annotations

import functools
import math

import torch
from torch import nn

from orchestrator.gridfile.cells import AttackChoice, ModelChoice
from orchestrator.jobs.job import Resources
from signsym_core.attacks.gradients import EOT
from signsym_core.backbones import Backbone
from signsym_core.datasets import DataSource
from signsym_core.evaluate import BLOCK
from signsym_core.finetune import FineTune

#: Multiply-adds per second of one GPU, and of one CPU core, in such networks.
GPU, CORE = 8e12, 2e10
#: Cost of a source of gradients relative to the feedback: two gradients, draws of B, the attacks that a hybrid runs.
GRADIENT_COST = {"mixed": 2, "eot": EOT.DRAWS, "hybrid": 3}
#: Seconds of a job beside its arithmetic: loading and saving.
START = 3.0


def training(backbone: Backbone, dataset: DataSource, settings: FineTune, resources: Resources) -> float:
    """Seconds of a pre-training or a fine-tune."""
    return START + 3 * settings.images_seen(dataset.counts[0]) * _forward(backbone, dataset) / _speed(resources)


def attacking(choice: AttackChoice, epsilons: int, model: ModelChoice) -> float:
    """Seconds of an attack job over `epsilons` radii."""
    _, images = model.dataset.counts
    if choice.images is not None:
        images = min(images, choice.images)
    passes = choice.attack.cost(epsilons) * GRADIENT_COST.get(choice.gradient, 1)
    return START + passes * images * _forward(model.backbone, model.dataset) / _speed(model.resources.attack)


def training_memory(backbone: Backbone, dataset: DataSource, settings: FineTune, resources: Resources) -> float:
    """Bytes of tensors of a training: weights, gradients, two moments and B, the saved activations, the images."""
    if resources.gpu != "auto":
        return 0.0
    weights, activations = _footprint(backbone, _sides(dataset))
    return 6 * weights + 2 * activations * settings.batch_size + _data(dataset)


def attack_memory(backbone: Backbone, dataset: DataSource, resources: Resources) -> float:
    """Bytes of tensors of an attack: weights and B of two models, activations of a block of images, the images."""
    if resources.gpu != "auto":
        return 0.0
    weights, activations = _footprint(backbone, _sides(dataset))
    return 4 * weights + 2 * activations * BLOCK + _data(dataset)


def _data(dataset: DataSource) -> float:
    """Bytes of the images, which are kept on the device as 8-bit pixels."""
    return 3 * math.prod(_sides(dataset)) * sum(dataset.counts)


def _sides(dataset: DataSource) -> tuple[int, int]:
    """Height and width of an image; 224 x 224 where only the data know them."""
    return dataset.sides or (224, 224)


@functools.cache
def _footprint(backbone: Backbone, sides: tuple[int, int]) -> tuple[float, float]:
    """Bytes of a network's weights, and of all layers' outputs for one image, from their shapes only."""
    activations = 0

    def count(_module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal activations
        activations += output.numel() * 4 if isinstance(output, torch.Tensor) else 0

    with torch.device("meta"):
        model = backbone.build(10, channels=3, size=sides).eval()
        for module in model.modules():
            if not list(module.children()):
                module.register_forward_hook(count)
        model(torch.empty(1, 3, *sides))
    return 4.0 * sum(parameter.numel() for parameter in model.parameters()), float(activations)


def _forward(backbone: Backbone, dataset: DataSource) -> float:
    """Multiply-adds of one image."""
    return backbone.multiply_adds * math.prod(_sides(dataset)) / 224**2


def _speed(resources: Resources) -> float:
    if resources.gpu == "auto":
        return GPU
    return GPU * resources.gpu if resources.gpu else CORE * resources.cpu

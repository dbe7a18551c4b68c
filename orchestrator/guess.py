"""How long a job takes where nothing like it was measured yet: stated defaults, from the arithmetic that it needs.

A training step costs three forward passes, a step of an attack as much; a forward pass costs the backbone's
multiply-adds at 224 x 224 pixels, in proportion to the pixels. What a device does in a second is stated below and is no
measurement: it is what decides whether a grid takes hours or weeks, not whether it takes four hours or five.
"""

from __future__ import annotations

from orchestrator.cells import AttackChoice, Model
from orchestrator.jobs import Resources
from signsym_core.attacks.gradients import EOT
from signsym_core.backbones import Backbone
from signsym_core.datasets import DataSource
from signsym_core.finetune import FineTune

#: Multiply-adds that one whole GPU, or one core of a processor, does in a second in such networks.
GPU, CORE = 8e12, 2e10
#: What a source of gradients costs over the feedback: the draws of B, and the attacks that a hybrid makes of one.
GRADIENT_COST = {"eot": EOT.DRAWS, "hybrid": 3}
#: Seconds of a job that no arithmetic explains.
START = 3.0


def training(backbone: Backbone, dataset: DataSource, settings: FineTune, resources: Resources) -> float:
    """Seconds of a pre-training or a fine-tune."""
    return START + 3 * settings.epochs * dataset.counts[0] * _forward(backbone, dataset) / _speed(resources)


def attacking(choice: AttackChoice, epsilons: int, model: Model) -> float:
    """Seconds of an attack job over so many epsilons."""
    _, images = model.dataset.counts
    if choice.images is not None:
        images = min(images, choice.images)
    passes = choice.attack.cost(epsilons) * GRADIENT_COST.get(choice.gradient, 1)
    return START + passes * images * _forward(model.backbone, model.dataset) / _speed(model.resources.attack)


def _forward(backbone: Backbone, dataset: DataSource) -> float:
    """Multiply-adds of one image."""
    return backbone.multiply_adds * ((dataset.size or 224) / 224) ** 2


def _speed(resources: Resources) -> float:
    if resources.gpu == "auto":
        return GPU
    return GPU * resources.gpu if resources.gpu else CORE * resources.cpu

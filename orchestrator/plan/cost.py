"""How long a job takes, and how much memory: what it has to compute, over the rates of a device.

Passes are counted as they are made: a gradient with respect to the pixels is two forward passes, a training step three.
Each step of an adversarial training makes its examples first. Attacks that leave out lost images are counted as if none
were lost. The first training on image files decodes them.
"""

from __future__ import annotations

import math

from orchestrator.jobs.job import Pace, Resources
from orchestrator.jobs.surrogates import transfers
from orchestrator.plan.rates import Device, Network, network_of
from signsym_core.arithmetic import Precision
from signsym_core.attacks import Attack
from signsym_core.attacks.base import Cost
from signsym_core.attacks.gradients import EOT
from signsym_core.backbones import Backbone
from signsym_core.datasets import DataSource
from signsym_core.datasets.files import FileSource
from signsym_core.evaluation.attack import BLOCK
from signsym_core.tasks import Task
from signsym_core.training.settings import FineTune

#: Gradients that are made for one of a source.
DRAWS = {"mixed": 2, "eot": EOT.DRAWS}
#: Bytes a second that are read from the store, and written to it with their digest; a training writes its weights, two
#: moments and B after each epoch.
READ, WRITTEN, COPIES = 1e9, 7e8, 4
#: Seconds in which a core decodes an image file, and more for each pixel that is kept.
DECODED, PIXEL = 5e-4, 7e-8


def training(task: Task, backbone: Backbone, dataset: DataSource, settings: FineTune, device: Device) -> float:
    """Seconds of a pre-training or a fine-tune on `device` alone, the decoding of its images left out."""
    network, (images, tests) = network_at(backbone, dataset), dataset.counts
    batch = max(1, min(settings.batch_size, images))
    epochs = settings.epochs if settings.steps is None else settings.steps / max(1, settings.batches(images))
    step = device.step(network, settings.precision, batch)
    if settings.adversarial is not None:
        gradient = settings.adversarial.get("gradient", "")
        made = passes(settings.adversarial.attack, gradient, 1, clean=False)
        # An evaluation scores its example once more, a training steps on it.
        step += device.passes(network, settings.precision, max(0, made.forwards - 1), made.gradients, batch)
    seconds = settings.images_seen(images) / batch * step
    looked = epochs * (dataset.validation_images or 0) if settings.validates else 0
    # The codes of the images that are retrieved.
    looked += images + tests if task.retrieves else 0
    seconds += device.passes(network, settings.precision, 1, 0, math.ceil(looked)) if looked else 0.0
    return device.rates.training + seconds + (1 + epochs) * COPIES * 4 * network.weights / WRITTEN


def decoding(dataset: DataSource, resources: Resources) -> float:
    """Seconds of the first job of a machine that reads a data set of image files."""
    if not isinstance(dataset, FileSource):
        return 0.0
    sides = _sides(dataset) if dataset.resize is None else (dataset.resize, dataset.resize)
    return sum(dataset.counts) * (DECODED + PIXEL * math.prod(sides)) / max(1.0, resources.cpu)


def attacking(network: Network, cost: Cost, images: int, precision: Precision, device: Device) -> float:
    """Seconds of an attack job on `device` alone, of `cost` for each image."""
    seconds = device.passes(network, precision, cost.forwards, cost.gradients, images)
    return device.rates.attack + 4 * network.weights / READ + seconds


def passes(attack: Attack, gradient: str, above: int, clean: bool) -> Cost:
    """The passes for each image of an attack that follows the source `gradient`, if no image is left out.

    It has so many epsilons above 0 and, with `clean`, 0 too.
    """
    cost = attack.cost(above, clean)
    if not above:
        return cost
    without_clean = attack.cost(above, False)
    if transfers(gradient):
        # What the attack knows of the clean images is of the surrogate.
        return Cost(forwards=without_clean.forwards + clean, gradients=without_clean.gradients)
    measured = attack.cost_of_measures(above)
    if gradient == "hybrid":
        cost = _hybrid(attack, above, clean, without_clean)
    gradients = cost.gradients * DRAWS.get(gradient, 1) + measured.gradients
    return Cost(forwards=cost.forwards + measured.forwards, gradients=gradients)


def _hybrid(attack: Attack, above: int, clean: bool, without_clean: Cost) -> Cost:
    """The surrogate's example, the attack from its usual start and, where it can, from there.

    Each is scored once more, and only the best of them is judged.
    """
    runs, inner = 3 if attack.goes_on else 2, without_clean.forwards - above
    # A run has the clean outputs anyway, and the one after it takes them from there.
    has_clean = attack.cost(above, True).forwards == without_clean.forwards
    forwards = 2 * inner + (runs + 1) * above + (clean and not has_clean)
    gradients = 2 * without_clean.gradients
    if attack.goes_on:
        # Elsewhere for each epsilon, so that none shares a gradient.
        forwards += max(0, inner - has_clean)
        gradients += above * attack.cost(1, False).gradients
    return Cost(forwards=forwards, gradients=gradients)


def attacked(images: int | None, dataset: DataSource) -> int:
    """The test images that a job attacks where the grid allows at most `images`."""
    return dataset.counts[1] if images is None else min(images, dataset.counts[1])


def device_of(resources: Resources) -> Device:
    """The device that `resources` describe, as if the job had it alone."""
    return Device(gpu=bool(resources.gpu), cores=max(resources.cpu, 1e-3))


def gpu_fraction(resources: Resources) -> float:
    """The part of its GPU that a job has; 1 for one that counts as alone, under "auto" too."""
    return resources.gpu if resources.gpu != "auto" and 0 < resources.gpu < 1 else 1.0


def pace(kind: str, resources: Resources, precision: Precision, *names: str) -> Pace:
    """The pace of a job with these resources: see `orchestrator.jobs.job`."""
    if not resources.gpu:
        # A CPU has no TF32.
        return (kind, "cpu", "float32" if precision == "tf32" else precision, *names)
    return (kind, resources.accelerator_type or "", precision, *names)


def network_at(backbone: Backbone, dataset: DataSource) -> Network:
    """What the backbone asks of a device for images of the data set."""
    # Where nothing says the size of the images, one that the network takes.
    largest = max(_sides(dataset)) if backbone.max_size is None else backbone.max_size
    height, width = (min(max(side, backbone.min_size), largest) for side in _sides(dataset))
    return network_of(backbone, (height, width))


def training_memory(backbone: Backbone, dataset: DataSource, settings: FineTune, resources: Resources) -> float:
    """Bytes of tensors of a training: weights, gradients, two moments and B, the saved activations, the images."""
    if resources.gpu != "auto":
        return 0.0
    network = network_at(backbone, dataset)
    # The graph of a step keeps its memory, so that the examples of an adversarial training need some of their own.
    kept = 2 if settings.adversarial is None else 4
    return 4 * (6 * network.weights + kept * network.activations * settings.batch_size) + _data(dataset)


def attack_memory(backbone: Backbone, dataset: DataSource, resources: Resources) -> float:
    """Bytes of tensors of an attack: weights and B of two models, activations of a block of images, the images."""
    if resources.gpu != "auto":
        return 0.0
    network = network_at(backbone, dataset)
    return 4 * (4 * network.weights + 2 * network.activations * BLOCK) + _data(dataset)


def _data(dataset: DataSource) -> float:
    """Bytes of the images, which are kept on the device as 8-bit pixels."""
    return 3 * math.prod(_sides(dataset)) * sum(dataset.counts)


def _sides(dataset: DataSource) -> tuple[int, int]:
    """Height and width of an image; 224 x 224 where nothing says them."""
    return dataset.sides or dataset.stated_sides or (224, 224)

"""How fast a device works: what a network asks of it, and the seconds that passes of images take.

Products are multiply-adds. A layer's outputs are written and read a few times in a pass, at the device's bandwidth. On
a GPU kernels are launched by the host layer by layer: a pass takes as long as that, or as the work, whichever is
longer. A training step is one CUDA graph and pays for each layer beside the work.
"""

from __future__ import annotations

import dataclasses
import functools
import math
import sys
import traceback
from collections.abc import Mapping

import torch
from torch import nn

from signsym_core.arithmetic import Precision
from signsym_core.backbones import Backbone
from signsym_core.evaluation.attack import BLOCK

#: How often the outputs of all layers cross the memory's bandwidth: in a training step and in a gradient with respect
#: to the pixels, and in a forward pass that keeps nothing.
TRAFFIC, FORWARD_TRAFFIC = 5.0, 1.5


@dataclasses.dataclass(frozen=True, kw_only=True)
class Network:
    """What a network asks of a device, from its shapes only."""

    #: Numbers in its weights, and in all layers' outputs for one image.
    weights: int
    activations: int
    #: Calls of layers in a forward pass, and the multiply-adds for one image of its convolutions and of the others.
    layers: int
    convolved: float
    multiplied: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
    """The speed of one device."""

    #: Multiply-adds a second by precision, and bytes a second.
    products: Mapping[Precision, float]
    bandwidth: float
    #: Seconds of the host for a layer of a forward pass, of a backward pass, and of a whole training step.
    forward: float
    backward: float
    step: float
    #: Seconds of a training step for a weight: its gradient, its moments, its update.
    weight: float
    #: Seconds of a training and of an attack beside their passes, in a worker that runs already.
    training: float
    attack: float


#: Measured (docs/performance.md): one H100 with torch 2.11, and one core of a cloud CPU whose other cores are busy.
H100 = Rates(
    products={"float32": 1.2e13, "tf32": 2.2e14, "bf16": 3e14},
    bandwidth=1.2e12,
    forward=47e-6,
    backward=62e-6,
    step=24e-6,
    weight=2e-11,
    training=0.5,
    attack=0.05,
)
CORE = Rates(
    products=dict.fromkeys(("float32", "tf32", "bf16"), 1.5e10),
    bandwidth=2.6e9,
    forward=1e-5,
    backward=2e-5,
    step=1.2e-4,
    weight=3e-9,
    training=0.3,
    attack=0.05,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Device:
    """A GPU, every one of which is taken for an H100 until it is measured, or some cores of a CPU."""

    gpu: bool
    cores: float = 1.0

    @property
    def rates(self) -> Rates:
        """The speed of the GPU, or of one core."""
        return H100 if self.gpu else CORE

    def step(self, network: Network, precision: Precision, batch: int) -> float:
        """Seconds of one training step, which costs three forward passes: two of them are the backward pass."""
        work = batch * self._image(network, precision, 3, TRAFFIC) + self._spread(self.rates.weight * network.weights)
        return self.rates.step * network.layers + work

    def passes(self, network: Network, precision: Precision, forwards: float, gradients: float, images: int) -> float:
        """Seconds of so many forward passes, and gradients with respect to the pixels, of each of `images` images.

        A gradient is a forward pass and a backward one that leaves out the weights, which costs as much.
        """
        count, launched = min(BLOCK, max(1, images)), self.rates.forward * network.layers
        forward = max(launched, count * self._image(network, precision, 1, FORWARD_TRAFFIC))
        launched += self.rates.backward * network.layers
        gradient = max(launched, count * self._image(network, precision, 2, TRAFFIC))
        return (forwards * forward + gradients * gradient) * images / count

    def _image(self, network: Network, precision: Precision, passes: int, traffic: float) -> float:
        """Seconds of the work for one image."""
        size = 2 if precision == "bf16" else 4
        rates = self.rates
        # Linear layers are float32 where convolutions are TF32: see `signsym_core.arithmetic`.
        linear_products = rates.products["float32" if precision == "tf32" else precision]
        work = passes * (network.convolved / rates.products[precision] + network.multiplied / linear_products)
        return self._spread(work + traffic * size * network.activations / rates.bandwidth)

    def _spread(self, seconds: float) -> float:
        """Seconds of work that one core, or the GPU, would take, spread over all cores."""
        return seconds if self.gpu else seconds / self.cores


@functools.cache
def network_of(backbone: Backbone, sides: tuple[int, int]) -> Network:
    """What the backbone with ten outputs asks of a device for images of these sides.

    Raises ValueError where the network cannot be made or does not take such images.
    """
    try:
        return _measured(backbone, sides)
    except ValueError:
        raise
    except Exception as error:
        file = sys.modules[type(backbone).__module__].__file__
        lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == file]
        where = f" ({file}:{lines[-1]})" if lines else ""
        size = " x ".join(map(str, sides))
        raise ValueError(
            f"backbone {backbone.name!r} with images of {size} pixels: {type(error).__name__}: {error}{where}"
        ) from error


def _measured(backbone: Backbone, sides: tuple[int, int]) -> Network:
    # On the device "meta" no weight is initialised.
    with torch.device("meta" if backbone.published else "cpu"):
        model = backbone.build(10, channels=3, size=sides)
    if backbone.published:
        model.to_empty(device="cpu")
    try:
        # Layers compute nothing for no images, and their outputs have a shape all the same.
        return _counted(model, torch.empty(0, 3, *sides))
    except RuntimeError:
        # Its code needs an image, such as to infer a size.
        return _counted(model, torch.zeros(1, 3, *sides))


def _counted(model: nn.Module, images: torch.Tensor) -> Network:
    activations = layers = 0
    convolved = multiplied = 0.0

    def count(module: nn.Module, _inputs: object, output: object) -> None:
        nonlocal activations, layers, convolved, multiplied
        layers += 1
        numbers = math.prod(filter(None, output.shape)) if isinstance(output, torch.Tensor) else 0
        activations += numbers
        if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Conv3d):
            convolved += numbers * module.weight[0].numel()
        elif isinstance(module, nn.Linear):
            multiplied += numbers * module.in_features

    def attend(module: nn.Module, _inputs: object, output: tuple[torch.Tensor, object]) -> None:
        # Four projections of every token, and every token against every other one, twice.
        nonlocal multiplied
        tokens, width = output[0].shape[-2:]
        multiplied += 4 * tokens * width**2 + 2 * tokens**2 * width

    # Not by torch's counter of operations, whose first use imports its compiler.
    for module in model.modules():
        if isinstance(module, nn.MultiheadAttention):
            module.register_forward_hook(attend)
        elif not list(module.children()):
            module.register_forward_hook(count)
    with torch.no_grad():
        model.eval()(images)
    weights = sum(parameter.numel() for parameter in model.parameters())
    shape = {"weights": weights, "activations": activations, "layers": layers}
    return Network(convolved=convolved, multiplied=multiplied, **shape)

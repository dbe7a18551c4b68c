"""A small convolutional network of spiking units."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Annotated

import torch
from torch import Tensor, nn

from signsym_core.backbones.base import Backbone
from signsym_core.backbones.lif import LIF
from signsym_core.registry import Positive, integer, within


class SpikingNetwork(nn.Module):
    """Convolutions with LIF units, shown the same image at every time step; the head's outputs averaged over time."""

    def __init__(self, channels: int, width: int, steps: int, beta: float, slope: float) -> None:
        super().__init__()
        self.steps = steps
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = channels
        for stage, outputs in enumerate((width, 2 * width), start=1):
            for place in (1, 2):
                stride = 2 if stage > 1 and place == 1 else 1
                suffix = f"{stage}_{place}"
                layers[f"conv{suffix}"] = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
                layers[f"norm{suffix}"] = nn.BatchNorm2d(outputs)
                layers[f"lif{suffix}"] = LIF(beta, slope)
                inputs = outputs
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        self.body = nn.Sequential(layers)
        self.head = nn.Linear(inputs, 10)

    def forward(self, images: Tensor) -> Tensor:
        units = [module for module in self.modules() if isinstance(module, LIF)]
        for unit in units:
            unit.rest()
        outputs = torch.stack([self.head(self.body(images)) for _ in range(self.steps)]).mean(dim=0)
        for unit in units:
            unit.rest()
        return outputs


@dataclasses.dataclass(frozen=True, kw_only=True)
class SNN(Backbone):
    """Four 3 x 3 convolutions with batch normalisation and LIF units, in stages of width w and 2w, then a Linear layer.

    The image itself is the current of every time step (direct coding), logits are averaged over time. A unit:
    v_t = β v_{t-1} + i_t, s_t = 1 where v_t >= 1 and else 0, then v_t is lowered by s_t; backward, ds/dv is the
    surrogate 1 / (1 + k |v - 1|)² and the lowering counts as constant. What is called exact gradient is ordinary
    autograd on the same weights, so here the gradient of the surrogate, and results call it so; an attack may choose a
    `spike_slope` k of its own.
    """

    name = "snn"
    label = "SNN"
    citation = (
        "this project: LIF units with the surrogate of Zenke, Ganguli 2018, arXiv 1705.11146, for the comparison of "
        "Lin, Sengupta 2025, arXiv 2504.08897, whose architectures could not be read"
    )
    min_size = 4
    head = "head"
    spiking = True
    mean = (0.5,)
    std = (0.5,)

    #: Channels of the first stage.
    width: Annotated[int, integer(1, 1024)] = 16
    #: Time steps.
    steps: Annotated[int, integer(1, 1000)] = 4
    #: What is left of a potential after a time step.
    beta: Annotated[float, within("[0, 1]")] = 0.5
    #: k, how fast the surrogate falls off around the threshold.
    slope: Positive = 10.0

    def network(self, channels: int) -> SpikingNetwork:
        return SpikingNetwork(channels, self.width, self.steps, self.beta, self.slope)

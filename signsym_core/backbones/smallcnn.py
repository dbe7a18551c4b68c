"""A small convolutional network that trains in seconds on a CPU."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Annotated

from torch import nn

from signsym_core.backbones.base import Backbone
from signsym_core.registry import integer


@dataclasses.dataclass(frozen=True, kw_only=True)
class SmallCNN(Backbone):
    """Six 3 x 3 convolutions with batch normalisation in three stages of width w, 2w, 4w, then one Linear layer.

    For grey or colour images of 8 pixels and more; deep enough that a sign-symmetric backward pass differs from the
    gradient.
    """

    name = "smallcnn"
    label = "SmallCNN"
    citation = "this project: a plain convolutional network for quick runs"
    min_size = 8
    head = "fc"
    mean = (0.5,)
    std = (0.5,)

    #: Channels of the first stage.
    width: Annotated[int, integer(1, 1024)] = 16

    def network(self, channels: int) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        inputs = channels
        for stage, outputs in enumerate((self.width, 2 * self.width, 4 * self.width), start=1):
            for place in (1, 2):
                stride = 2 if stage > 1 and place == 1 else 1
                suffix = f"{stage}_{place}"
                layers[f"conv{suffix}"] = nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False)
                layers[f"norm{suffix}"] = nn.BatchNorm2d(outputs)
                layers[f"relu{suffix}"] = nn.ReLU(inplace=True)
                inputs = outputs
        layers["pool"] = nn.AdaptiveAvgPool2d(1)
        layers["flatten"] = nn.Flatten()
        layers["fc"] = nn.Linear(inputs, 10)
        return nn.Sequential(layers)

"""A perceptron with one hidden layer."""

from __future__ import annotations

import dataclasses
from collections import OrderedDict
from typing import Annotated, Literal

from torch import nn

from signsym_core.backbones.base import Backbone
from signsym_core.registry import integer

_UNITS: dict[str, type[nn.Module]] = {"sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "relu": nn.ReLU}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MLP(Backbone):
    """All pixels, a hidden layer, and a Linear layer: y = W₂ f(W₁ x + b₁) + b₂.

    Images of another size than `side` x `side` are averaged to it first. Feedback alignment and its successors were
    measured on such networks: 784-500-10 is `side: 28` and `hidden: 500`.
    """

    name = "mlp"
    label = "MLP"
    citation = "Rumelhart, Hinton, Williams 1986; as in Akrout et al. 2019, arXiv 1904.05391, whose units are sigmoid"
    min_size = 2
    head = "head"
    mean = (0.5,)
    std = (0.5,)

    #: Height and width of the images that the hidden layer reads.
    side: Annotated[int, integer(2, 256)] = 28
    #: Units of the hidden layer, and their function f.
    hidden: Annotated[int, integer(1, 16384)] = 500
    units: Literal["sigmoid", "tanh", "relu"] = "sigmoid"

    def network(self, channels: int) -> nn.Module:
        layers: OrderedDict[str, nn.Module] = OrderedDict()
        layers["size"] = nn.AdaptiveAvgPool2d(self.side)
        layers["pixels"] = nn.Flatten()
        layers["hidden"] = nn.Linear(channels * self.side**2, self.hidden)
        layers["units"] = _UNITS[self.units]()
        layers["head"] = nn.Linear(self.hidden, 10)
        return nn.Sequential(layers)

"""ConvNeXt-T as torchvision has it."""

from __future__ import annotations

import dataclasses

from torch import nn

from signsym_core.backbones.base import Backbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtTiny(Backbone):
    """ConvNeXt-T: depthwise 7 x 7 convolutions, layer normalisation, and a learnt scale of each block."""

    name = "convnext_tiny"
    label = "ConvNeXt-T"
    citation = "Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, A ConvNet for the 2020s, arXiv 2201.03545"
    min_size = 32
    head = "classifier.2"
    published = "ConvNeXt_Tiny_Weights"

    def network(self, channels: int) -> nn.Module:
        from torchvision import models

        network: nn.Module = models.convnext_tiny()
        return network

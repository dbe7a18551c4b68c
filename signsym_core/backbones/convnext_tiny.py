"""ConvNeXt-T as torchvision has it."""

from __future__ import annotations

import dataclasses

from signsym_core.backbones.published import PublishedBackbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ConvNeXtTiny(PublishedBackbone):
    """ConvNeXt-T: depthwise 7 x 7 convolutions, layer normalisation, and a learnt scale of each block."""

    name = "convnext_tiny"
    label = "ConvNeXt-T"
    citation = "Liu, Mao, Wu, Feichtenhofer, Darrell, Xie 2022, A ConvNet for the 2020s, arXiv 2201.03545"
    min_size = 32
    head = "classifier.2"
    published = "ConvNeXt_Tiny_Weights"

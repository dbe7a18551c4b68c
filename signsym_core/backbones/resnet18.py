"""ResNet-18 as torchvision has it."""

from __future__ import annotations

import dataclasses

from signsym_core.backbones.published import PublishedBackbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet18(PublishedBackbone):
    """ResNet-18 with batch normalisation."""

    name = "resnet18"
    label = "ResNet-18"
    citation = "He, Zhang, Ren, Sun 2016, Deep residual learning for image recognition, arXiv 1512.03385"
    min_size = 32
    head = "fc"
    published = "ResNet18_Weights"

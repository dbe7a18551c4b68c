"""ResNet-50 as torchvision has it."""

from __future__ import annotations

import dataclasses

from signsym_core.backbones.published import PublishedBackbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNet50(PublishedBackbone):
    """ResNet-50: bottleneck blocks with batch normalisation."""

    name = "resnet50"
    label = "ResNet-50"
    citation = "He, Zhang, Ren, Sun 2016, Deep residual learning for image recognition, arXiv 1512.03385"
    min_size = 32
    head = "fc"
    published = "ResNet50_Weights"

"""VGG-16 as torchvision has it."""

from __future__ import annotations

import dataclasses

from signsym_core.backbones.published import PublishedBackbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class VGG16(PublishedBackbone):
    """VGG-16 without batch normalisation."""

    name = "vgg16"
    label = "VGG-16"
    citation = "Simonyan, Zisserman 2015, Very deep convolutional networks, arXiv 1409.1556"
    min_size = 32
    head = "classifier.6"
    published = "VGG16_Weights"

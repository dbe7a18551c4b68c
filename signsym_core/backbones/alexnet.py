"""AlexNet as torchvision has it."""

from __future__ import annotations

import dataclasses

from signsym_core.backbones.published import PublishedBackbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class AlexNet(PublishedBackbone):
    """AlexNet (one tower, no normalisation layers), with dropout before its two hidden Linear layers."""

    name = "alexnet"
    label = "AlexNet"
    citation = "Krizhevsky 2014, One weird trick for parallelizing convolutional neural networks, arXiv 1404.5997"
    min_size = 63
    head = "classifier.6"
    published = "AlexNet_Weights"

"""ViT-B/16 as torchvision has it."""

from __future__ import annotations

import dataclasses

from signsym_core.backbones.published import PublishedBackbone


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViTB16(PublishedBackbone):
    """ViT-B/16: twelve blocks of attention and MLP on 196 patches of 16 x 16 pixels and a class token."""

    name = "vit_b_16"
    label = "ViT-B/16"
    citation = "Dosovitskiy et al. 2021, An image is worth 16x16 words, arXiv 2010.11929"
    min_size = 224
    max_size = 224
    head = "heads.head"
    published = "ViT_B_16_Weights"

"""From uint8 images to a model's inputs, in batches on the images' own device.

Legend: images uint8 [b, channels, height, width]; inputs float32 [b, channels, size, size] in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from signsym_core.datasets.base import DataSource


def inputs(images: Tensor, source: DataSource) -> Tensor:
    """Images as a model is tested on them: resized, and cropped to the middle where the data set crops."""
    pixels = _resized(images.float().div_(255), source.crop_from or source.size)
    if source.crop_from is None or source.size is None:
        return pixels
    # Rounded as torchvision rounds it.
    margin = round((source.crop_from - source.size) / 2)
    return pixels[:, :, margin : margin + source.size, margin : margin + source.size]


def augmented(images: Tensor, source: DataSource, generator: torch.Generator) -> Tensor:
    """Images as a model is trained on them: resized, cropped at random and mirrored where the data set allows it.

    `generator` is a CPU generator, so that a CPU and a GPU see the same crops.
    """
    pixels = _resized(images.float().div_(255), source.crop_from or source.size)
    count, device = len(pixels), pixels.device
    if source.crop_from is not None and source.size is not None:
        margin = source.crop_from - source.size
        corners = torch.randint(margin + 1, (2, count, 1), generator=generator).to(device)
        span = torch.arange(source.size, device=device)
        rows, columns = corners[0] + span, corners[1] + span
        each = torch.arange(count, device=device)
        # Indexing by three broadcast index tensors puts the channels last.
        pixels = pixels[each[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
    if source.flips:
        mirrored = torch.rand(count, generator=generator).to(device) < 0.5
        pixels = torch.where(mirrored.view(-1, 1, 1, 1), pixels.flip(3), pixels)
    return pixels


def _resized(pixels: Tensor, side: int | None) -> Tensor:
    if side is None or pixels.shape[2:] == (side, side):
        return pixels
    resized = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return resized.clamp_(0, 1)

"""From uint8 images to a model's inputs, in batches on the images' device.

Legend: images uint8 [b, channels, height, width]; inputs float32 [b, channels, size, size] in [0, 1].
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from signsym_core.datasets.base import DataSource


def inputs(images: Tensor, source: DataSource) -> Tensor:
    """Test inputs: the images resized, and cropped to the middle where the data set crops."""
    pixels = _resized(images, source.crop_from or source.size)
    if source.crop_from is not None and source.size is not None:
        # Rounded like torchvision's CenterCrop.
        margin = round((source.crop_from - source.size) / 2)
        pixels = pixels[:, :, margin : margin + source.size, margin : margin + source.size]
    return _scaled(pixels)


class Prepared:
    """Test inputs that are computed when they are indexed: all of them as float32 may exceed a device's memory."""

    dtype = torch.float32

    def __init__(self, images: Tensor, source: DataSource) -> None:
        self.images, self.source = images, source

    @property
    def device(self) -> torch.device:
        """The device of the images."""
        return self.images.device

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, rows: slice) -> Tensor:
        return inputs(self.images[rows], self.source)


def augmented(images: Tensor, source: DataSource, generator: torch.Generator) -> Tensor:
    """Training inputs: the images resized, cropped at random and mirrored where the data set allows it.

    `generator` is a CPU generator, so that a CPU and a GPU use the same crops.
    """
    pixels = _resized(images, source.crop_from or source.size)
    count, device = len(pixels), pixels.device
    if source.crop_from is not None and source.size is not None:
        margin = source.crop_from - source.size
        corners = brought(torch.randint(margin + 1, (2, count, 1), generator=generator), device)
        span = torch.arange(source.size, device=device)
        rows, columns = corners[0] + span, corners[1] + span
        numbers = torch.arange(count, device=device)
        # Advanced indexing with three broadcast index tensors puts the channels last.
        pixels = (
            pixels[numbers[:, None, None], :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2).contiguous()
        )
    if source.flips:
        mirrored = brought(torch.rand(count, generator=generator) < 0.5, device)
        pixels = torch.where(mirrored[:, None, None, None], pixels.flip(3), pixels)
    return _scaled(pixels)


def brought(tensor: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor copied to `device`; the copy to a GPU is asynchronous."""
    if device.type != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    return tensor.pin_memory().to(device, non_blocking=True)


def _resized(images: Tensor, side: int | None) -> Tensor:
    """The images resized to `side`; where they have that size, still bytes, which are cheaper to copy than floats."""
    if side is None or images.shape[2:] == (side, side):
        return images
    pixels = images.float().div_(255)
    resized = F.interpolate(pixels, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return resized.clamp_(0, 1)


def _scaled(pixels: Tensor) -> Tensor:
    """Float pixels in [0, 1]: bytes divided by 255, floats unchanged."""
    return pixels if pixels.is_floating_point() else pixels.float().div_(255)

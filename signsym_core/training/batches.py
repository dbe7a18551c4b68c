"""The batches of an epoch: in an order and with an augmentation that depend on the seed and the epoch alone."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from signsym_core import seeds
from signsym_core.datasets import DataSource, Split, augmented, inputs
from signsym_core.datasets.batches import brought
from signsym_core.datasets.mapped import Mapped
from signsym_core.training.settings import FineTune


def first_images(train: Split, source: DataSource, settings: FineTune) -> Tensor:
    """The first images of a split as a model's input, without augmentation: at most a batch."""
    images = train.take(torch.arange(min(settings.batch_size, len(train)))).images
    assert isinstance(images, Tensor)
    return inputs(images.to(train.labels.device), source)


def epoch_batches(
    train: Split, source: DataSource, settings: FineTune, seed: int, epoch: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """The inputs and labels of each step of an epoch, counted from 0."""
    order = torch.randperm(len(train), generator=seeds.generator(seed, "order", epoch))
    chance = seeds.generator(seed, "augment", epoch)
    places = order.to(train.device)
    for chosen, here in zip(order.split(settings.batch_size), places.split(settings.batch_size), strict=True):
        # The last batch, which `FineTune.batches` does not count either.
        if len(chosen) == 1 and settings.batch_size > 1 and len(train) > 1:
            continue
        mapped = isinstance(train.images, Mapped)
        images = brought(train.images[chosen], train.device) if mapped else train.images[here]
        pixels = augmented(images, source, chance) if settings.augment else inputs(images, source)
        yield pixels, train.labels[here]

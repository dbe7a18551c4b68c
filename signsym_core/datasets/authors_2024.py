"""The splits of the first author's public code of July 2024: Python's own shuffle, from the seed 0.

Source: github.com/Modern-Compilers-Lab/BioDeepHashing, src/data/process.

Legend: positions int64 in the order that the code gives the images; splits "train", "test" (its queries), "validation"
and "database".
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from types import MappingProxyType

import torch
from torch import Tensor

#: What the parameter `split` of a data set calls it.
NAME = "authors-2024"
#: Images of each class of CIFAR-10, in this order; the rest are the database.
OF_A_CLASS = MappingProxyType({"train": 500, "test": 100, "validation": 100})


def shuffled(count: int) -> list[int]:
    """The numbers 0 .. count - 1 after `random.seed(0)` and `random.shuffle`."""
    order = list(range(count))
    random.Random(0).shuffle(order)
    return order


def per_class(labels: Tensor, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """CIFAR-10's: of each class the first images of the shuffled order, so many for each split of `counts` in turn.

    `labels` is int64 [n]. Raises ValueError for a class with fewer images than that.
    """
    order = torch.tensor(shuffled(len(labels)))
    masks = {split: torch.zeros(len(labels), dtype=torch.bool) for split in counts}
    free = torch.ones(len(labels), dtype=torch.bool)
    for number in range(int(labels.max()) + 1):
        of_class = order[labels[order] == number]
        if len(of_class) < sum(counts.values()):
            need = ", ".join(f"{count} {split}" for split, count in counts.items())
            raise ValueError(f"expected of each class {need} images, got {len(of_class)} images of class {number}")
        first = 0
        for split, count in counts.items():
            chosen = of_class[first : first + count]
            masks[split][chosen] = True
            free[chosen] = False
            first += count
    return {split: mask.nonzero().flatten() for split, mask in (masks | {"database": free}).items()}


def folds(images: int, counts: Mapping[str, int]) -> dict[str, Tensor]:
    """COCO's and NUS-WIDE's: the names of the splits of `counts` in turn, then "database", shuffled; one an image.

    Raises ValueError where no image is left for the database.
    """
    need = sum(counts.values())
    if images <= need:
        raise ValueError(f"expected more than {need:,} images for {', '.join(counts)} and a database, got {images:,}")
    # The name at a place of the shuffled row is that of the place that it came from.
    origins = torch.tensor(shuffled(images))
    splits: dict[str, Tensor] = {}
    first = 0
    for split, count in (*counts.items(), ("database", images - need)):
        splits[split] = ((origins >= first) & (origins < first + count)).nonzero().flatten()
        first += count
    return splits

"""Which images a split holds: fixed draws and nested subsets that depend only on labels and a named generator.

Legend: labels int64 [n] with one class each, or uint8 0/1 [n, classes] where an image has several; positions int64.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

_RULE = re.compile(r"([1-9][0-9]{0,8})/([1-9][0-9]{0,8})/rest")


def per_class(rule: str) -> tuple[int, int] | None:
    """T and Q of a rule "T/Q/rest", or None where `rule` has another form."""
    matched = _RULE.fullmatch(rule)
    return (int(matched[1]), int(matched[2])) if matched else None


def check_classes(labels: Tensor, count: int) -> None:
    """Raise ValueError unless every one of the labels is a class of 0 .. count - 1, or has a column for each."""
    if labels.dim() == 1 and len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < count:
        raise ValueError(f"labels must lie in 0 .. {count - 1}, got {int(labels.min())} .. {int(labels.max())}")
    if labels.dim() == 2 and labels.shape[1] != count:
        raise ValueError(f"labels must have {count} columns, one for each class, got {list(labels.shape)}")


def has_class(labels: Tensor, number: int) -> Tensor:
    """bool [n]: which images carry the class `number`."""
    return labels == number if labels.dim() == 1 else labels[:, number] > 0


def draw(labels: Tensor, names: Sequence[str], train: int, queries: int, order: Tensor) -> dict[str, Tensor]:
    """The positions of each split, with `queries` test images and `train` training images of every class.

    Images are drawn in the sequence `order`, a permutation of 0 .. n - 1: first the queries, class by class, then the
    training images, class by class, always from the images that are not drawn yet (an image with several labels counts
    for one of them). The remaining images are the database. Raises ValueError for a class with too few images.
    """
    masks = {name: torch.zeros(len(labels), dtype=torch.bool) for name in ("test", "train")}
    free = torch.ones(len(labels), dtype=torch.bool)
    for split, count in (("test", queries), ("train", train)):
        for number, name in enumerate(names):
            members = order[(has_class(labels, number) & free)[order]][:count]
            if len(members) < count:
                total = int(has_class(labels, number).sum())
                raise ValueError(
                    f"parameter 'split' asks {train} training and {queries} test images of each class; class {name!r} "
                    f"has {total} images in all and {len(members)} of the {count} that its {split} split needs"
                )
            masks[split][members] = True
            free[members] = False
    return {name: mask.nonzero().flatten() for name, mask in (masks | {"database": free}).items()}


def nested(labels: Tensor, classes: Sequence[int], every: bool, order: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and new labels of the images that carry a class of `classes`, ranked so that any prefix is balanced.

    The first image of every class in the sequence `order` comes first, then the second of every class, and so on; an
    image with several labels gets the lowest of its ranks. Labels are renumbered, or their columns reordered, in the
    order of `classes`. With `every`, images without any label come last; otherwise they are left out.
    """
    relabelled = labels[:, list(classes)] if labels.dim() == 2 else _renumbered(labels, classes)
    # Pairs of an image, by its place in `order`, and a class of it; one look at all images, however many classes.
    if labels.dim() == 2:
        places, carried = relabelled[order].nonzero(as_tuple=True)
    else:
        places = (relabelled[order] >= 0).nonzero().flatten()
        carried = relabelled[order[places]]
    by_class = torch.argsort(carried, stable=True)
    places, carried = places[by_class], carried[by_class]
    sizes = torch.bincount(carried, minlength=len(classes))
    earlier = torch.arange(len(carried)) - (sizes.cumsum(0) - sizes)[carried]
    last = torch.iinfo(torch.int64).max
    ranks = torch.full((len(labels),), last).scatter_reduce(0, places, earlier * len(classes) + carried, "amin")
    ranked = order[torch.argsort(ranks, stable=True)]
    chosen = ranked if every else ranked[: int((ranks < last).sum())]
    return chosen, relabelled[chosen]


def _renumbered(labels: Tensor, classes: Sequence[int]) -> Tensor:
    """int64 [n]: the place of each label in `classes`, -1 for one that is not there."""
    numbers = torch.full((max(classes) + 1,), -1)
    numbers[list(classes)] = torch.arange(len(classes))
    known = (labels >= 0) & (labels < len(numbers))
    return torch.where(known, numbers[labels.clamp(0, len(numbers) - 1)], -1)

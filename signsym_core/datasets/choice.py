"""Which images a split holds: fixed draws and nested choices that depend on labels and a named generator alone.

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


def has_class(labels: Tensor, number: int) -> Tensor:
    """bool [n]: which images carry the class `number`."""
    return labels == number if labels.dim() == 1 else labels[:, number] > 0


def draw(labels: Tensor, names: Sequence[str], train: int, queries: int, order: Tensor) -> dict[str, Tensor]:
    """The positions of each part when every class gives `queries` images to the test and `train` to the training part.

    Images are taken in the sequence `order`, a permutation of 0 .. n - 1: first each class in turn its queries, then
    each class in turn its training images, always of those that no class has taken yet (an image with several labels
    counts for one of them). What remains is the database. Raises ValueError for a class that has too few.
    """
    parts = {name: torch.zeros(len(labels), dtype=torch.bool) for name in ("test", "train")}
    free = torch.ones(len(labels), dtype=torch.bool)
    for part, count in (("test", queries), ("train", train)):
        for number, name in enumerate(names):
            members = order[(has_class(labels, number) & free)[order]][:count]
            if len(members) < count:
                total = int(has_class(labels, number).sum())
                raise ValueError(
                    f"parameter 'split' asks {train} training and {queries} test images of each class; class {name!r} "
                    f"has {total} images in all and {len(members)} of the {count} that its {part} part needs"
                )
            parts[part][members] = True
            free[members] = False
    return {name: mask.nonzero().flatten() for name, mask in (parts | {"database": free}).items()}


def nested(labels: Tensor, wanted: Sequence[int], every: bool, order: Tensor) -> tuple[Tensor, Tensor]:
    """Positions and new labels of the images that carry a class of `wanted`, ranked so that any prefix is balanced.

    First comes the first image of every class in the sequence `order`, then the second of every class, ...; an image
    with several labels stands where the first of them puts it. Labels are renumbered, or their columns reordered, as
    `wanted` says. With `every`, images without any label follow at the end; otherwise they are left out.
    """
    last = torch.iinfo(torch.int64).max
    ranks = torch.full((len(labels),), last)
    for new, old in enumerate(wanted):
        members = order[has_class(labels, old)[order]]
        ranks[members] = torch.minimum(ranks[members], torch.arange(len(members)) * len(wanted) + new)
    ranked = order[torch.argsort(ranks[order], stable=True)]
    chosen = ranked if every else ranked[: int((ranks < last).sum())]
    if labels.dim() == 2:
        return chosen, labels[chosen][:, list(wanted)]
    relabelled = torch.full_like(labels, -1)
    for new, old in enumerate(wanted):
        relabelled[labels == old] = new
    return chosen, relabelled[chosen]

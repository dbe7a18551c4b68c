"""The margin of an image in logits, which is negative once it is lost, and scale-free losses made from it.

Legend: n images, c classes; z logits [n, c]; y the image's labels: int64 [n], or 0/1 [n, c] where it has several.
π sorts an image's logits from the largest to the smallest: z_π1 ≥ z_π2 ≥ ...
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Added to a spread of logits, so that equal logits do not cause a division by zero.
_TINY = 1e-12
#: Logit of a missing class, for an image with every label or with none.
_ABSENT = -1e9


def margin(z: Tensor, y: Tensor) -> Tensor:
    """[n]: z_y - max of the other classes; negative where the image is lost. Of several labels the best counts."""
    is_label = _mask(z, y)
    return z.masked_fill(~is_label, _ABSENT).amax(dim=1) - z.masked_fill(is_label, _ABSENT).amax(dim=1)


def gap(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """[n]: z_t - z_y for the classes `target` [n]; of several labels the best counts. Positive where t is above y."""
    label_logit = z.masked_fill(~_mask(z, y), _ABSENT).amax(dim=1)
    return z.gather(1, target.unsqueeze(1)).squeeze(1) - label_logit


def dlr(z: Tensor, y: Tensor) -> Tensor:
    """[n]: the difference of logits ratio, -(z_y - max of the others) / (z_π1 - z_π3), of equation 6: to be raised.

    It does not change when the logits are shifted or scaled. Needs three classes or more. π is over the classes but the
    image's further labels: with two labels above all else z_π3 were the best other class, and the ratio always -1.
    """
    if z.shape[1] < 3:
        raise ValueError(f"the loss dlr compares the three largest logits; the model has {z.shape[1]} classes")
    ordered = _sorted(z, y)
    return -margin(z, y) / _spread(ordered[:, 0] - ordered[:, 2])


def targeted_dlr(z: Tensor, y: Tensor, target: Tensor) -> Tensor:
    """[n]: -(z_y - z_t) / (z_π1 - (z_π3 + z_π4) / 2), of equation 7, for the classes `target` [n]: to be raised.

    Needs four classes or more; π as in `dlr`.
    """
    if z.shape[1] < 4:
        raise ValueError(f"the targeted dlr compares the four largest logits; the model has {z.shape[1]} classes")
    ordered = _sorted(z, y)
    return gap(z, y, target) / _spread(ordered[:, 0] - (ordered[:, 2] + ordered[:, 3]) / 2)


def runners_up(z: Tensor, y: Tensor, count: int) -> Tensor:
    """int64 [n, up to `count`]: the classes that are not labels of the image, by descending logit."""
    count = min(count, z.shape[1] - 1)
    return z.masked_fill(_mask(z, y), _ABSENT).topk(count, dim=1).indices


def _sorted(z: Tensor, y: Tensor) -> Tensor:
    """[n, c]: the logits of an image from the largest to the smallest, its labels but the best one last."""
    if y.ndim == 2:
        further = (y > 0).scatter(1, z.masked_fill(y == 0, _ABSENT).argmax(dim=1, keepdim=True), False)
        z = z.masked_fill(further, -torch.inf)
    return z.sort(dim=1, descending=True).values


def _spread(spread: Tensor) -> Tensor:
    """What a ratio divides by: 1, which is no ratio, where an image has too few classes that are no labels."""
    return torch.where(spread.isinf(), 1.0, spread + _TINY)


def _mask(z: Tensor, y: Tensor) -> Tensor:
    """bool [n, c]: the labels of each image."""
    if y.ndim == 2:
        return y > 0
    return torch.zeros_like(z, dtype=torch.bool).scatter(1, y.unsqueeze(1), True)

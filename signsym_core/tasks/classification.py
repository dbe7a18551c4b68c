"""Classification: cross-entropy and top-1."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from signsym_core.tasks.base import Task


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """One class for each image: cross-entropy on logits [n, classes]; an image is right when its top-1 is its label."""

    name = "classification"
    label = "classification"
    citation = "cross-entropy and top-1 accuracy"
    metric = "top1"

    def outputs(self, classes: int) -> int:
        return classes

    def loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels)

    def attack_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, labels, reduction="sum")

    def correct(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return outputs.argmax(dim=1) == labels

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        if outputs.ndim != 2 or outputs.shape[0] != len(labels) or outputs.shape[1] < 2:
            raise ValueError(f"the model must give logits of shape [{len(labels)}, classes], got {list(outputs.shape)}")
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise ValueError(f"labels must be int64[n], got {labels.dtype}{list(labels.shape)}")
        if labels.min() < 0 or labels.max() >= outputs.shape[1]:
            raise ValueError(
                f"labels must be in 0 .. {outputs.shape[1] - 1}, the model's classes; "
                f"got {int(labels.min())} .. {int(labels.max())}"
            )

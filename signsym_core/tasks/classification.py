"""Classification: cross-entropy and top-1, for images with one label or several."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor

from signsym_core.retrieval.codes import Gallery
from signsym_core.tasks.base import Objective, Task


class CrossEntropy(Objective):
    """Cross-entropy against the label, or against the normalised vector of several: the mean over the batch."""

    def forward(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(outputs, target(labels))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Classification(Task):
    """A class for each image, from logits [n, classes]; an image is right when its top class is one of its labels.

    An image without any label has loss 0 and is never right.
    """

    name = "classification"
    label = "classification"
    citation = "cross-entropy and top-1 accuracy"
    metric = "top1"

    def outputs(self, classes: int) -> int:
        return classes

    def objective(self, classes: int, seed: int) -> CrossEntropy:
        return CrossEntropy()

    def attack_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        return cross_entropy(outputs, labels).sum()

    def score(self, outputs: Tensor, labels: Tensor, gallery: Gallery | None) -> Tensor:
        top = outputs.argmax(dim=1)
        right = top == labels if labels.ndim == 1 else labels.gather(1, top.unsqueeze(1)).squeeze(1) > 0
        return right.double()

    def decided(self, labels: Tensor) -> Tensor:
        if labels.ndim == 1:
            return super().decided(labels)
        # With every label all classes are right, and none is without one.
        return labels.bool().all(dim=1) | ~labels.bool().any(dim=1)

    def predict(self, outputs: Tensor, gallery: Gallery | None) -> Tensor:
        return outputs.argmax(dim=1)

    def confidence(self, outputs: Tensor, labels: Tensor) -> Tensor | None:
        """By softmax. None where images have several labels: it is then trained towards an equal share for each.

        Of an image with two labels the best network gives its class 0.5, and is always right.
        """
        return None if labels.ndim == 2 else outputs.double().softmax(dim=1).amax(dim=1)

    def chance(self, labels: Tensor, gallery: Gallery | None) -> float:
        counts = torch.bincount(labels) if labels.ndim == 1 else labels.sum(dim=0, dtype=torch.int64)
        return float(counts.max()) / len(labels)

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        if outputs.ndim != 2 or outputs.shape[0] != len(labels) or outputs.shape[1] < 2:
            raise ValueError(f"the model must give logits of shape [{len(labels)}, classes], got {list(outputs.shape)}")
        classes = outputs.shape[1]
        if labels.ndim == 2:
            if labels.shape[1] != classes or not ((labels == 0) | (labels == 1)).all():
                raise ValueError(f"several labels must be 0/1 [n, {classes}], got {labels.dtype}{list(labels.shape)}")
            return
        if labels.dtype != torch.int64 or labels.ndim != 1:
            raise ValueError(f"labels must be int64[n] or 0/1 [n, classes], got {labels.dtype}{list(labels.shape)}")
        if labels.min() < 0 or labels.max() >= classes:
            raise ValueError(
                f"labels must be in 0 .. {classes - 1}, the model's classes; "
                f"got {int(labels.min())} .. {int(labels.max())}"
            )


def cross_entropy(outputs: Tensor, labels: Tensor) -> Tensor:
    """[n]: -log p, p the probability of the label, or of all labels of 0/1 [n, classes] together: to be raised.

    The cross-entropy against a distribution over several labels, which training lowers, would be no loss to attack: it
    rises at first where one label takes the probability of the others, and the image stays right. Of an image with one
    label both are the same. 0 for an image without any label.
    """
    if labels.ndim == 1:
        return F.cross_entropy(outputs, labels, reduction="none")
    # -log p = log(1 + (1 - p) / p), whose gradient keeps its direction where p is near 1.
    return F.softplus(log_odds(outputs, labels)).masked_fill((labels == 0).all(dim=1), 0.0)


def log_odds(outputs: Tensor, labels: Tensor) -> Tensor:
    """[n]: log((1 - p) / p), p the softmax probability of the label, or of all labels of 0/1 [n, classes] together."""
    if labels.ndim == 1:
        labels = F.one_hot(labels, outputs.shape[1])
    is_label = labels > 0
    rest = outputs.masked_fill(is_label, -torch.inf).logsumexp(dim=1)
    return rest - outputs.masked_fill(~is_label, -torch.inf).logsumexp(dim=1)


def target(labels: Tensor) -> Tensor:
    """A class, or a distribution over classes that is uniform over the image's labels."""
    if labels.ndim == 1:
        return labels
    return labels.float() / labels.sum(dim=1, keepdim=True).clamp(min=1)

"""Hashing retrieval: codes of K bits trained with the HyP² loss, scored by mAP@k against a clean database."""

from __future__ import annotations

import dataclasses
from typing import Literal

import torch
from torch import Tensor

from signsym_core.registry import Count, NonNegative, Positive, neutral, require
from signsym_core.retrieval.codes import Codes, Gallery, signs
from signsym_core.retrieval.ranking import Ties, average_precision, chance, nearest
from signsym_core.tasks.base import Task
from signsym_core.tasks.hyp2 import DISTANCES, HyP2, threshold

#: Draws of a validation, images of each at most, and the chance that one of them is a query.
DRAWS, DRAWN, ASKS = 5, 1000, 0.1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Hashing(Task):
    """The code of an image is the sign of the head's K outputs; an image is scored by its AP@k as a query.

    The score of `k` and `ties` is `signsym_core.retrieval.ranking.average_precision`'s. HashNet's protocol, which the
    paper cites, has k = 1,000 for ImageNet100 and 5,000 for the other data sets.
    """

    name = "hashing"
    label = "hashing retrieval"
    citation = "Xu et al. 2022, HyP² Loss: Beyond Hypersphere Metric Space for Multi-label Image Retrieval"
    metric = "map"
    retrieves = True
    scoring = frozenset({"k", "ties"})

    #: Bits of a code.
    bits: Count = 32
    #: Which pairs of dissimilar images the loss separates: see `signsym_core.tasks.hyp2.hyp2_loss`.
    variant: Literal["original", "h2q"] = "h2q"
    #: Weight of the pairs of images in the loss.
    beta: NonNegative = 0.5
    #: Cosine above which two classes are pushed apart; null: by bits and classes, from a table.
    zeta: float | None = None
    #: Whether outputs go through tanh before the loss; their signs are the same.
    tanh: bool = False
    #: Learning rate of the class proxies.
    proxy_lr: NonNegative = 1e-3
    #: Number of top-ranked items that are scored; null: all.
    k: Count | None = 5000
    #: Order of items at equal distance: "expected" averages over all orders, "stable" keeps the database's order,
    #: "features" takes the distance of the real-valued outputs at length 1, as the authors' code of 2024.
    ties: Ties = "expected"

    #: Standard deviation of a hash layer that starts from N(0, .), with biases of 0; null: PyTorch's start of a Linear.
    head_std: Positive | None = neutral(None)

    def __post_init__(self) -> None:
        super().__post_init__()
        tabulated = self.zeta is not None or self.bits in DISTANCES
        require(tabulated, "bits", f"one of {', '.join(map(str, DISTANCES))}, or zeta set", self.bits)
        require(self.zeta is None or -1 <= self.zeta < 1, "zeta", "null or a cosine, -1 <= zeta < 1", self.zeta)

    def outputs(self, classes: int) -> int:
        return self.bits

    def objective(self, classes: int, seed: int) -> HyP2:
        zeta = threshold(self.bits, classes) if self.zeta is None else self.zeta
        settings = {"variant": self.variant, "beta": self.beta, "tanh": self.tanh, "lr": self.proxy_lr}
        return HyP2(classes, self.bits, zeta=zeta, seed=seed, **settings)  # type: ignore[arg-type]

    def attack_loss(self, outputs: Tensor, labels: Tensor) -> Tensor:
        raise ValueError("task 'hashing' has no loss of outputs and labels alone to attack; 'hag' and 'sdha' fit it")

    def score(self, outputs: Tensor, labels: Tensor, gallery: Gallery | None) -> Tensor:
        return average_precision(_queries(outputs, labels, self.ties), _needed(gallery).database, self.k, self.ties)

    def validate(self, outputs: Tensor, labels: Tensor, generator: torch.Generator) -> float:
        """The mean mAP of 5 draws: of at most 1,000 images each is a query with probability 1/10, the rest is searched.

        All items are ranked, with ties by features. Each draw has a query and an item at least, so that two images are
        needed. Source: the authors' code of 2024.
        """
        if len(labels) < 2:
            raise ValueError("task 'hashing' expects at least two validation images, one to search for the other")
        scores = []
        for _ in range(DRAWS):
            chosen = torch.randperm(len(labels), generator=generator)[:DRAWN]
            chances = torch.rand(len(chosen), generator=generator, dtype=torch.float64)
            asks = ((chances <= ASKS) | (chances == chances.min())) & (chances < chances.max())
            sides = [chosen[rows].to(labels.device) for rows in (asks, ~asks)]
            queries, items = (_queries(outputs[rows], labels[rows], "features") for rows in sides)
            scores.append(float(average_precision(queries, items, None, "features").mean()))
        return sum(scores) / len(scores)

    def predict(self, outputs: Tensor, gallery: Gallery | None) -> Tensor:
        """The class of the nearest item of the database, the first one of several; -1 for an item without any."""
        database = _needed(gallery).database
        labels = database.labels[nearest(signs(outputs), database)]
        if labels.ndim == 1:
            return labels
        return torch.where(labels.bool().any(dim=1), labels.argmax(dim=1), -1)

    def chance(self, labels: Tensor, gallery: Gallery | None) -> float:
        """The expected mAP@k of a random ranking, which is the score of a model whose codes are all equal."""
        database = _needed(gallery).database
        return chance(Codes(signs=database.signs[:1].expand(len(labels), -1), labels=labels), database, self.k)

    def check(self, outputs: Tensor, labels: Tensor) -> None:
        if outputs.ndim != 2 or len(outputs) != len(labels) or outputs.shape[1] != self.bits:
            raise ValueError(f"the model must give outputs [{len(labels)}, {self.bits}], got {list(outputs.shape)}")
        if labels.ndim not in (1, 2):
            raise ValueError(f"labels must be int64[n] or 0/1 [n, classes], got {labels.dtype}{list(labels.shape)}")


def _queries(outputs: Tensor, labels: Tensor, ties: Ties) -> Codes:
    return Codes(signs=signs(outputs), labels=labels, features=outputs.detach() if ties == "features" else None)


def _needed(gallery: Gallery | None) -> Gallery:
    if gallery is None:
        raise ValueError("task 'hashing' needs a gallery: the codes of the database that queries are ranked against")
    return gallery

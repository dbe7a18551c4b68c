"""Which epoch's model a training keeps, and when it stops early: by a score on validation images after each epoch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from torch import nn

from signsym_core import seeds
from signsym_core.datasets import DataSource, Split
from signsym_core.retrieval.codes import evaluated
from signsym_core.rules.convert import exact_gradient
from signsym_core.tasks import Task

Keep = Literal["last", "best"]


def validation_scores(history: Sequence[Mapping[str, Any]]) -> list[float]:
    """The score of each epoch, from a training's history."""
    return [row["validation"] for row in history if "validation" in row]


def kept_epoch(history: Sequence[Mapping[str, Any]], keep: Keep) -> int:
    """The epoch, from 1, whose model is kept of a training with this history; 0 where it has no epoch.

    "last" is the last one; "best" the one with the highest score, the first of several.
    """
    epochs = [row for row in history if "loss" in row]
    if not epochs:
        return 0
    kept = epochs[-1] if keep == "last" else max(epochs, key=lambda row: float(row["validation"]))
    return int(kept["epoch"])


def stops(scores: Sequence[float], patience: int | None, min_delta: float) -> bool:
    """Whether a training with these scores ends: `patience` epochs in a row were not better.

    An epoch is better where its score less `min_delta` exceeds that of the last better one; the first always is.
    Source: EarlyStopping of PyTorch Lightning, which the authors' code uses.
    """
    reference, waited = -float("inf"), 0
    for score in scores:
        better = score - min_delta > reference
        reference, waited = (score, 0) if better else (reference, waited + 1)
        if patience is not None and waited >= patience:
            return True
    return False


def validation_score(
    model: nn.Module, task: Task, split: Split, source: DataSource, *, seed: int, epoch: int, batch: int
) -> float:
    """The score 0 .. 1 of `model` on the validation images after epoch `epoch`, counted from 0.

    At most `batch` images are in the network at once, in float32 unless the training is in bf16. The model goes on
    training as if it had not been asked: no rule draws for these passes, and no global generator moves. Raises
    NonFiniteOutputError.
    """
    with exact_gradient(model), seeds.seeded_globally(seed, "validation pass", epoch, device=split.device):
        outputs = evaluated(model, split, source, batch)
    return task.validate(outputs, split.labels, seeds.generator(seed, "validation", epoch))

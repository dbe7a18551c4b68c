"""The settings of a fine-tune, and what follows from them before anything runs."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Annotated, Literal

from signsym_core.arithmetic import Precision
from signsym_core.datasets import DataSource
from signsym_core.registry import Count, NonNegative, check_bounds, integer, neutral, require, within
from signsym_core.training.adversarial import Adversarial
from signsym_core.training.selection import Keep


@dataclasses.dataclass(frozen=True, kw_only=True)
class FineTune:
    """Settings of a fine-tune; the defaults are the paper's where its text kept them (see docs/protocol.md)."""

    epochs: Annotated[int, integer(0)] = 20
    batch_size: Count = 32
    #: Learning rate of the body, and of the fresh head.
    lr: NonNegative = 1e-5
    head_lr: NonNegative = 1e-4
    weight_decay: NonNegative = 5e-4
    #: Adam couples weight decay with its moments, AdamW does not.
    optimizer: Literal["adam", "adamw"] = "adam"
    beta1: Annotated[float, within("[0, 1)")] = 0.9
    beta2: Annotated[float, within("[0, 1)")] = 0.999
    #: Whether training images are cropped and mirrored as the data set allows.
    augment: bool = True
    #: Steps between two logs of each layer's alignment with BP; 0: never.
    log_alignment: int = 0
    #: Arithmetic of a step; weights, feedback matrices, loss and optimiser are always float32.
    precision: Precision = neutral("tf32")
    #: Whether a GPU uses only deterministic kernels.
    deterministic: bool = neutral(True)
    #: Steps of the optimiser in all, in as many epochs as they take, the last of which may end early; `epochs` plays no
    #: part then. null: whole epochs.
    steps: Annotated[int, integer(0)] | None = neutral(None)
    #: The epoch whose model is kept: the last, or the one with the best score on the data set's validation images, the
    #: first of several.
    keep: Keep = neutral("last")
    #: Epochs in a row without a better validation score after which training ends; null: it goes on to the last.
    patience: Count | None = neutral(None)
    #: By how much a score must exceed that of the last better epoch to end such a row.
    min_delta: NonNegative = neutral(0.0)
    #: The attack whose examples against the current model take the place of each batch's images: {name: pgd, epsilon:
    #: 8/255, steps: 7, gradient: exact}, with the attack's parameters. null: the images themselves.
    adversarial: Adversarial | None = neutral(None)

    def __post_init__(self) -> None:
        if self.adversarial is not None:
            require(isinstance(self.adversarial, Mapping), "adversarial", Adversarial.words, self.adversarial)
            object.__setattr__(self, "adversarial", Adversarial.from_plain(self.adversarial))
        check_bounds(self)
        require(self.log_alignment >= 0, "log_alignment", "a whole number of steps, at least 0", self.log_alignment)
        idle = self.min_delta > 0 and self.patience is None
        require(not idle, "patience", f"a whole number beside min_delta {self.min_delta}", self.patience)
        unvalidated = self.steps is None or not self.validates
        require(unvalidated, "steps", "null where epochs are validated (keep: best, or patience)", self.steps)

    @property
    def validates(self) -> bool:
        """Whether each epoch is scored on validation images."""
        return self.keep == "best" or self.patience is not None

    def misfit(self, source: DataSource) -> str | None:
        """Why these settings do not fit a data set; None where they do."""
        if not self.validates or source.has_validation:
            return None
        return (
            f"keep: best and patience need validation images, and data set {source.name!r} has none; set its parameter "
            f"validation_images, or a split that has some"
        )

    def batches(self, images: int) -> int:
        """Steps of a whole epoch over `images` images."""
        count, last = divmod(images, self.batch_size)
        # Batch normalisation cannot train on a last batch of one image, which is left out.
        return count + (last > 1 or (last == 1 and images == 1))

    def images_seen(self, images: int) -> int:
        """Images that go through the network in all, from a training split of `images`."""
        return self.epochs * images if self.steps is None else self.steps * min(self.batch_size, images)

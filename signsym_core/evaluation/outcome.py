"""What an attack did to each image.

Legend: n images, e epsilons.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from torch import Tensor

from signsym_core.attacks.ball import Norm


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What an attack did to each image, on the CPU."""

    epsilons: tuple[float, ...]
    #: The norm that the epsilons are radii of.
    norm: Norm
    #: float64 [e, n], 0 .. 1: how well the model handles the adversarial image; in classification 1 or 0. Of an attack
    #: that certifies, 1 where the image is certified.
    scores: Tensor
    #: float32 [e, n]: the largest change of a pixel that was made.
    linf: Tensor
    #: float64 [e, n]: the size of the change in the attack's norm.
    sizes: Tensor
    #: int64 [e, n]: how often the model was asked about the image; None for an attack that does not count, or that was
    #: run on no image, as with `carry` where all are lost at epsilon 0.
    queries: Tensor | None
    #: float64 [n]: size of the smallest perturbation that was found, in the attack's norm, for an attack that looks for
    #: it: 0 where the clean image is lost already, infinity where none was found.
    distances: Tensor | None
    #: bool [n]: the loss had no gradient at all at the clean image; None where the attack did not ask for one. False
    #: where it did, but for no image of a block, all being lost.
    zero_gradient: Tensor | None
    #: int64 [e, n]: how many entries of the image's gradient were NaN or infinite and so taken for 0: of the worst one
    #: of all gradients that the attack followed. What an attack proposes and is NaN counts too. None where no gradient
    #: was asked for.
    nonfinite_gradient: Tensor | None
    #: float64 [e, n] by name: what the attack's `measures` are of each image, NaN where it is not known, as at
    #: epsilon 0; empty for an attack that measures nothing.
    measured: Mapping[str, Tensor]
    #: int64 [e, n]: the class that the model sees.
    predictions: Tensor
    #: float64 [e, n]: the probability that it gives that class; NaN where outputs give none, as where images have
    #: several labels.
    confidence: Tensor
    #: float [e, kept, channels, height, width]: the first adversarial images, as many as were asked for.
    adversarial: Tensor
    #: Calls of the model, forward and backward.
    forwards: int
    backwards: int
    #: The same in images.
    images_forward: int
    images_backward: int

    @property
    def robust(self) -> Tensor:
        """bool [e, n]: the model still handles the adversarial image rightly; in retrieval, at all."""
        return self.scores > 0

    @property
    def accuracy(self) -> list[float]:
        """The task's metric for each epsilon: the share of images still handled rightly, or mAP."""
        return [float(row.mean()) for row in self.scores]

    @property
    def reach(self) -> list[float]:
        """Mean size of the change over epsilon, for each epsilon: 1 is the border of the ball; NaN at epsilon 0."""
        means = self.sizes.mean(dim=1).tolist()
        return [mean / epsilon if epsilon else math.nan for mean, epsilon in zip(means, self.epsilons, strict=True)]

    @property
    def failed_starts(self) -> int | None:
        """Images that no perturbation was found for, which count as not broken; None where the attack seeks none."""
        return None if self.distances is None else int(self.distances.isinf().sum())

"""Batch-wise random-magnitude sign-concordant feedback (brSF): the signs of W, magnitudes redrawn every update."""

from __future__ import annotations

import dataclasses
from typing import Literal

from signsym_core.rules.base import Redraw
from signsym_core.rules.frsf import FRSF


@dataclasses.dataclass(frozen=True, kw_only=True)
class BRSF(FRSF):
    """brSF, B = s · √3 · M ∘ sign(W), with M ~ U(0, 1) drawn again after every update of W.

    The magnitudes change only while the layer trains: in evaluation B is a fixed matrix, so an attack meets one
    backward pass, not a random one. `redraw="forward"` gives BioTorch's behaviour instead: new magnitudes at every
    forward pass, also in evaluation.
    """

    name = "brsf"
    label = "brSF"
    tags = frozenset({"sign-symmetric", "follows-weights"})

    redraw: Literal["update", "forward"] = "update"

    @property
    def redraws(self) -> Redraw:
        return self.redraw

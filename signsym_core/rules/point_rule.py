"""Rules at points: what a rule gives for each, a signal or a readout.

Legend: n images, k outputs of the network; e = ∂L/∂outputs [n, k], the error; δ the gradient that arrives at a point
from above, of the shape of its output: [n, c], [n, c, h, w] or [n, tokens, c]; B [k, features] the point's matrix.
"""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
from torch import Tensor, nn

from signsym_core.registry import require
from signsym_core.rules.base import LEVELS, fill_levels
from signsym_core.rules.point_names import USUAL, point_names
from signsym_core.rules.whole import WholeRule


@dataclasses.dataclass(frozen=True, kw_only=True)
class PointRule(WholeRule):
    """A rule at points, given by `signal`, or by `readout` where it cuts the network."""

    #: Whether the network is cut at each point, so that a block learns from its own readout alone.
    cuts: ClassVar[bool] = False

    #: Modules whose output is a point, by name; "blocks" are every residual block and every activation outside of one.
    points: tuple[str, ...] = (USUAL,)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.points), "points", "the name of a module, at least one", self.points)

    @property
    def sends_gradient(self) -> bool:
        return False

    def check_network(self, network: nn.Module) -> None:
        point_names(network, self.points)

    def features(self, shape: torch.Size) -> int:
        """Columns of the matrix of a point whose output has this shape."""
        return shape[-1] if len(shape) == 3 else shape[1]

    def matrix(self, out: Tensor, generator: torch.Generator) -> None:
        """Fill the matrix [k, features] of a point, once: U(-√3 s, √3 s), s = √(2 / (k + features)) (Glorot's)."""
        fill_levels(out, generator)
        out.mul_(2 / LEVELS).sub_(1).mul_(math.sqrt(6 / sum(out.shape)))

    def signal(self, error: Tensor, delta: Tensor, matrix: Tensor) -> Tensor:
        """What a point sends down in place of δ, of its shape."""
        raise NotImplementedError(f"rule {self.name!r} gives no signal for its points")

    def readout(self, output: Tensor, matrix: Tensor) -> Tensor:
        """Outputs [n, k] that are read from a point's output, for a rule that cuts."""
        raise NotImplementedError(f"rule {self.name!r} cuts the network and gives no readout")

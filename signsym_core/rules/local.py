"""Local errors: the network is cut at every point, and each block learns from a fixed random readout of its output."""

from __future__ import annotations

import dataclasses

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from signsym_core.microbatch import backward
from signsym_core.models.outputs import outputs_of
from signsym_core.rules.point_rule import PointRule
from signsym_core.rules.points import readouts, summed
from signsym_core.tasks import Objective

#: Height and width that the positions of a convolution are pooled to before they are read.
POOLED = 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class Local(PointRule):
    """Local errors: L = L(outputs) + Σ_l L(p_l Rᵀ_l), no gradient passes a point; p_l the pooled output of point l.

    R [k, features] is fixed and random; p is [n, c], [n, 4c] of 2 x 2 means of [n, c, h, w], or the mean over tokens.
    A point that is called T times in a pass is read each time, with 1/T of the loss. The backward pass of the model,
    what an attack along its feedback follows, is the gradient of the same sum with the attack's loss.
    """

    name = "local"
    label = "local"
    citation = "Mostafa, Ramesh, Cauwenberghs 2018, Deep supervised learning using local errors, arXiv 1711.06756"
    cuts = True

    def features(self, shape: torch.Size) -> int:
        return super().features(shape) * (POOLED**2 if len(shape) == 4 else 1)

    def readout(self, output: Tensor, matrix: Tensor) -> Tensor:
        if output.ndim == 4:
            pooled = F.adaptive_avg_pool2d(output, POOLED).flatten(1)
        else:
            pooled = output.mean(dim=1) if output.ndim == 3 else output
        return pooled @ matrix.to(pooled.dtype).t()

    def step(
        self, model: nn.Module, objective: Objective, images: Tensor, labels: Tensor, micro_batch: int | None
    ) -> Tensor:
        """The gradients of the sum of all losses; the loss of the outputs, detached."""
        joined = _Joined(model)
        both = _Both(joined, objective)
        backward(joined, both, images, labels, micro_batch)
        return both.of_outputs


class _Joined(nn.Module):
    """The outputs of a cut model and all its readouts side by side, [n, k · (1 + readouts)]."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.shares: list[float] = []

    def forward(self, images: Tensor) -> Tensor:
        with readouts(self.model) as read:
            outputs = outputs_of(self.model, images)
            self.shares = [share for share, _ in read]
            return torch.cat([outputs, *(readout for _, readout in read)], dim=1)


class _Both(Objective):
    """The sum of an objective over the outputs and the readouts in what `_Joined` gives."""

    def __init__(self, joined: _Joined, objective: Objective) -> None:
        super().__init__()
        self.joined, self.objective = joined, objective
        self.of_outputs = torch.empty(0)

    def forward(self, joined: Tensor, labels: Tensor) -> Tensor:
        outputs, *read = joined.chunk(1 + len(self.joined.shares), dim=1)

        def loss(outputs: Tensor) -> Tensor:
            return self.objective(outputs, labels)

        of_outputs = loss(outputs)
        self.of_outputs = of_outputs.detach()
        return summed(of_outputs, loss, list(zip(self.joined.shares, read, strict=True)))

"""Low-dimensional error feedback: B = P Q of a chosen rank, a dial from backpropagation down."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor

from signsym_core.registry import Count
from signsym_core.rules.learned import LearnedRule, Lesson, uniform

#: Rows of a Gram matrix up to which its eigenvectors are computed.
EXACT = 1024
#: Subspace iterations for larger ones, and the columns that they have beyond the rank.
ITERATIONS, OVERSAMPLED = 8, 16


@dataclasses.dataclass(frozen=True, kw_only=True)
class LowRank(LearnedRule):
    """B = P Q with P [out, r] and Q [r, fan_in], r = min(rank, out, fan_in); ∂W = δ xᵀ as ever.

    `start`: `svd`, the best approximation of W of that rank (of layers with more than 1,024 rows and columns one that
    is near it), which transports weights; or `random`.

    | update | ∂P | ∂Q |
    | --- | --- | --- |
    | `frozen` | none | none: B is that of the conversion |
    | `normative` | (P Q - W) Qᵀ | Pᵀ (P Q - W), the gradient of \\|P Q - W\\|² / 2, which transports weights |
    | `local` | ∂W Qᵀ | Pᵀ ∂W, that of the loss where W = P Q |
    | `oja` | -(I - P Pᵀ) Dᵀ D P | Pᵀ ∂W, with D [n, out] = δ less its mean, over the largest deviation of a column |

    P and Q are trained by the optimiser, at W's rate and without weight decay. A layer with fewer rows or columns than
    `rank` has full rank.
    """

    name = "lowrank"
    label = "LR"
    citation = "Hanut, Kadmon 2025, arXiv 2502.20580 (version 1: oja; version 4: normative, local)"
    matrix = None

    rank: Count = 8
    start: Literal["svd", "random"] = "svd"
    update: Literal["frozen", "normative", "local", "oja"] = "normative"

    @property
    def follows_optimizer(self) -> bool:
        return self.update != "frozen"

    @property
    def needs_gradient(self) -> bool:
        return self.update in ("local", "oja")

    @property
    def aligns(self) -> bool:
        # As far as its rank allows, and not at all where nothing compares it with W.
        return False

    @property
    def observes(self) -> bool:
        return self.update == "oja"

    def begin(self, weight: Tensor, generator: torch.Generator) -> dict[str, Tensor]:
        rows = weight.flatten(1)
        rank = min(self.rank, *rows.shape)
        if self.start == "random":
            # Columns of P of about unit length, as Oja's rule makes them; B gets the size that `scale` says.
            outputs = rows.shape[0]
            rms = self.b_rms(weight)
            return {
                "P": uniform((outputs, rank), 1 / math.sqrt(outputs), weight, generator),
                "Q": uniform((rank, rows.shape[1]), math.sqrt(outputs / rank) * rms, weight, generator),
            }
        left, right = truncated(rows, rank, generator)
        if self.update != "oja":
            share = right.norm(dim=1).sqrt()
            left, right = left * share, right / share.clamp_min(torch.finfo(share.dtype).tiny).unsqueeze(1)
        return {"P": left.to(weight.dtype), "Q": right.to(weight.dtype)}

    def assemble(self, held: Mapping[str, Tensor], out: Tensor) -> None:
        torch.mm(held["P"], held["Q"], out=out.flatten(1))

    def observe(self, held: Mapping[str, Tensor], delta: Tensor) -> dict[str, Tensor]:
        return {
            "count": torch.tensor(float(len(delta)), device=delta.device),
            "sum": delta.sum(dim=0),
            "squares": delta.square().sum(dim=0),
            "products": delta.t() @ (delta @ held["P"]),
        }

    def learn(self, held: Mapping[str, Tensor], lesson: Lesson) -> dict[str, Tensor]:
        p, q = held["P"], held["Q"]
        if self.update == "frozen":
            return {}
        if self.update == "normative":
            error = torch.addmm(lesson.weight.flatten(1), p, q, beta=-1)
            return {"P": error @ q.t(), "Q": p.t() @ error}
        gradient = lesson.gradient.flatten(1)
        if self.update == "local":
            return {"P": gradient @ q.t(), "Q": p.t() @ gradient}
        return {"P": self._oja(p, lesson.sums), "Q": p.t() @ gradient}

    def _oja(self, p: Tensor, sums: Mapping[str, Tensor]) -> Tensor:
        """-(I - P Pᵀ) Dᵀ D P from sums over δ."""
        mean = sums["sum"] / sums["count"]
        # Σ (δ - mean) (δ - mean)ᵀ P, and the largest variance of a column.
        spread = sums["products"] - torch.outer(sums["sum"], mean @ p)
        variance = (sums["squares"] / sums["count"] - mean.square()).max()
        spread = spread / variance.clamp_min(torch.finfo(p.dtype).tiny)
        return p @ (p.t() @ spread) - spread

    def b_rms(self, weight: Tensor) -> Tensor | float:
        """The RMS of a random B: one number, also where `scale` is for each channel."""
        rms = self._rms(weight)
        if rms is None:
            return 1 / math.sqrt(3)
        return rms.square().mean().sqrt() if isinstance(rms, Tensor) else rms


def truncated(rows: Tensor, rank: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """U [out, rank] and S Vᵀ [rank, fan_in] of the singular value decomposition of `rows`, contiguous.

    From the eigenvectors of the smaller Gram matrix in double: exact to the rounding of float32, and many times faster
    than the decomposition itself. Where that matrix has more than `EXACT` rows and `rank` is small beside them, from
    `ITERATIONS` subspace iterations instead, as Halko, Martinsson, Tropp 2011 (algorithm 4.4) have them.
    """
    tall = rows.shape[0] > rows.shape[1]
    wide = rows.t() if tall else rows
    if len(wide) > EXACT and 4 * rank < len(wide):
        basis = torch.randn(wide.shape[1], rank + OVERSAMPLED, dtype=wide.dtype, generator=generator)
        for _ in range(ITERATIONS):
            basis = wide.t() @ torch.linalg.qr(wide @ basis).Q
        columns = torch.linalg.qr(wide @ basis).Q
        inner = torch.linalg.eigh((projected := (columns.t() @ wide).double()) @ projected.t()).eigenvectors
        vectors = columns.double() @ inner.flip(1)[:, :rank]
    else:
        vectors = torch.linalg.eigh((exact := wide.double()) @ exact.t()).eigenvectors.flip(1)[:, :rank]
    vectors = vectors.to(wide.dtype)
    scaled = vectors.t() @ wide
    if not tall:
        return vectors.contiguous(), scaled.contiguous()
    values = scaled.norm(dim=1, keepdim=True)
    left = scaled / values.clamp_min(torch.finfo(values.dtype).tiny)
    return left.t().contiguous(), (values * vectors.t()).contiguous()

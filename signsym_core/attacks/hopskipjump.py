"""HopSkipJump: walks along the decision boundary by a gradient that is estimated only from decisions."""

from __future__ import annotations

import dataclasses
import math
from typing import Literal

import torch
from torch import Tensor

from signsym_core.attacks.ball import Norm, column, sizes
from signsym_core.attacks.minimisation import MinimisationAttack, Oracle
from signsym_core.registry import Count, Positive

#: Numbers in one image's perturbations at a time, which bounds the memory of an estimate.
_NUMBERS = 1 << 22
#: Halvings of a step after which an image stays unchanged.
_HALVINGS = 60


@dataclasses.dataclass(frozen=True, kw_only=True)
class HopSkipJump(MinimisationAttack):
    """Step t: estimate the boundary's normal u from Bₜ = B₀ √t decisions at distance δ around xₜ; move by ξ · u with
    ξ = d(x, xₜ) / √t, halved until the image is lost; then search the straight line to x for the boundary.

    The estimate is the mean of (φ - φ̄) · v over random unit vectors v, with φ = ±1 the decisions (equation 16), of
    length 1; with the constraint "linf" its sign. δ is d(x, xₜ) / (number of pixels), 0.1 in the first step. Algorithm
    2 with Foolbox's defaults and the same numbers as Foolbox for a batch of one; in larger batches Foolbox divides
    every image's step by the batch's norm, so that its distances grow with the batch; here they do not. The nearest
    image of all steps is kept, not the last one.

    An image stops where its `queries` do not cover the next estimate. The steps need about 36,000.
    """

    name = "hopskipjump"
    label = "HopSkipJump"
    citation = "Chen, Jordan, Wainwright 2020, HopSkipJumpAttack, arXiv 1904.02144, algorithm 2"

    steps: Count = 64
    #: The norm that is minimised, and that epsilons are radii of.
    constraint: Literal["l2", "linf"] = "l2"
    #: Decisions of the first estimate: B₀.
    first_evaluations: Count = 100
    #: Most decisions of an estimate.
    most_evaluations: Count = 10_000
    #: The search for the boundary ends at γ / d^1.5 of the way, in L∞ at γ / d², for d pixels times channels.
    gamma: Positive = 1.0

    @property
    def norm(self) -> Norm:
        return self.constraint

    def walk(self, oracle: Oracle, originals: Tensor, start: Tensor, places: Tensor) -> Tensor:
        current = self._to_border(oracle, originals, start, places)
        best, least = current, self._distances(originals, current)
        distances, pixels = least, originals[0].numel()
        for step in range(self.steps):
            evaluations = self._evaluations(step)
            going = oracle.affords(places, evaluations).nonzero().flatten()
            if len(going) == 0:
                break
            going_places, here, clean = places[going], current[going], originals[going]
            delta = torch.full_like(distances[going], 0.1) if step == 0 else self.gamma * distances[going] / pixels
            update = self._normal(oracle, here, going_places, delta, evaluations)
            if self.constraint == "linf":
                update = update.sign()
            moved = self._lost_along(oracle, here, update, distances[going] / math.sqrt(step + 1), going_places)
            moved = self._to_border(oracle, clean, moved, going_places)
            current = current.index_copy(0, going, moved)
            distances = distances.index_copy(0, going, self._distances(clean, moved))
            nearer = distances < least
            best, least = torch.where(column(nearer, best), current, best), torch.where(nearer, distances, least)
        return best

    def needed(self) -> float:
        # A start and a search for the boundary take up to fifty decisions each.
        return 50 + sum(self._evaluations(step) + 50 for step in range(self.steps))

    def _evaluations(self, step: int) -> int:
        return int(min(self.first_evaluations * math.sqrt(step + 1), self.most_evaluations))

    def _distances(self, originals: Tensor, images: Tensor) -> Tensor:
        return sizes(images - originals, self.norm).to(images.dtype)

    def _to_border(self, oracle: Oracle, originals: Tensor, lost: Tensor, places: Tensor) -> Tensor:
        """The nearest lost image on the line from each image of `lost` to its original, by bisection."""
        pixels = originals[0].numel()
        if self.constraint == "linf":
            high = self._distances(originals, lost)
            enough = high * self.gamma / pixels**2
        else:
            high = torch.ones(len(lost), dtype=lost.dtype, device=lost.device)
            enough = high * self.gamma / pixels**1.5
        low, last = torch.zeros_like(high), high
        searching = (high - low > enough).nonzero().flatten()
        while len(searching):
            middle = (low[searching] + high[searching]) / 2
            proposed = self._towards(originals[searching], lost[searching], middle)
            is_lost = oracle.lost(proposed, places[searching])
            high = high.index_copy(0, searching, torch.where(is_lost, middle, high[searching]))
            low = low.index_copy(0, searching, torch.where(is_lost, low[searching], middle))
            # An unchanged middle means that there is no float in between.
            open_still = (high - low > enough)[searching] & (last[searching] != middle)
            last = last.index_copy(0, searching, middle)
            searching = searching[open_still & oracle.affords(places[searching])]
        return self._towards(originals, lost, high)

    def _towards(self, originals: Tensor, lost: Tensor, share: Tensor) -> Tensor:
        """In L2 the share of the way to the lost image, in L∞ the lost image clipped to that radius."""
        share = column(share, lost)
        if self.constraint == "linf":
            return torch.minimum(torch.maximum(lost, originals - share), originals + share)
        return (1 - share) * originals + share * lost

    def _lost_along(self, oracle: Oracle, here: Tensor, update: Tensor, length: Tensor, places: Tensor) -> Tensor:
        """The lost image at the first of the lengths ξ, ξ/2, ξ/4, ... that has one; `here` where none has."""
        result, searching = here, torch.arange(len(here), device=here.device)
        for _ in range(_HALVINGS):
            searching = searching[oracle.affords(places[searching])]
            if len(searching) == 0:
                break
            step = column(length[searching], here) * update[searching]
            proposed = (here[searching] + step).clamp(0, 1)
            is_lost = oracle.lost(proposed, places[searching])
            result = result.index_copy(0, searching[is_lost], proposed[is_lost])
            length = length.index_copy(0, searching, length[searching] / 2)
            searching = searching[~is_lost]
        return result

    def _normal(self, oracle: Oracle, here: Tensor, places: Tensor, delta: Tensor, evaluations: int) -> Tensor:
        """The estimate of the boundary's normal at `here`, of L2 length 1, from so many decisions for each image."""
        # The number of vectors per draw depends only on the image's size, so that its stream's numbers do too.
        piece = max(1, min(evaluations, _NUMBERS // here[0].numel()))
        group = max(1, oracle.micro_batch // piece)
        groups = zip(here.split(group), places.split(group), delta.split(group), strict=True)
        # On the host once for all draws.
        listed = places.tolist()
        estimates = []
        for number, tensors in enumerate(groups):
            drawn_for = listed[number * group : (number + 1) * group]
            estimates.append(self._group_normal(oracle, drawn_for, *tensors, evaluations, piece))
        return torch.cat(estimates)

    def _group_normal(
        self,
        oracle: Oracle,
        drawn_for: list[int],
        here: Tensor,
        places: Tensor,
        delta: Tensor,
        evaluations: int,
        piece: int,
    ) -> Tensor:
        signed, plain, shape = torch.zeros_like(here), torch.zeros_like(here), here.shape[1:]
        total = torch.zeros(len(here), dtype=here.dtype, device=here.device)
        radius = column(delta, here).unsqueeze(1)
        for begin in range(0, evaluations, piece):
            count = min(piece, evaluations - begin)
            draw = oracle.streams.uniform if self.constraint == "linf" else oracle.streams.normal
            vectors = draw(drawn_for, count, *shape)
            if self.constraint == "linf":
                vectors = 2 * vectors - 1
            lengths = vectors.flatten(2).norm(dim=2).view(len(here), count, *[1] * len(shape))
            around = (here.unsqueeze(1) + radius * vectors / (lengths + 1e-12)).clamp(0, 1)
            # The perturbations after clipping to [0, 1].
            vectors = (around - here.unsqueeze(1)) / (radius + 1e-8)
            lost = oracle.lost(around.flatten(0, 1), places.repeat_interleave(count)).view(len(here), count)
            signs = torch.where(lost, 1.0, -1.0).to(here.dtype)
            signed += (signs.view(lengths.shape) * vectors).sum(dim=1)
            plain += vectors.sum(dim=1)
            total += signs.sum(dim=1)
        mean = column(total / evaluations, here)
        # Where all decisions are equal, subtracting their mean would leave 0.
        estimate = torch.where(mean.abs() == 1, signed, signed - mean * plain) / evaluations
        return estimate / (column(estimate.flatten(1).norm(dim=1), here) + 1e-12)

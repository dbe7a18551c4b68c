"""Square: a random search whose moves change square patches of the image. Uses logits and no gradient."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import Annotated

import torch
from torch import Tensor

from signsym_core.attacks.base import Cost, NormedAttack
from signsym_core.attacks.margins import margin
from signsym_core.attacks.problem import Problem, Told
from signsym_core.attacks.squares import moves
from signsym_core.registry import integer, within

#: Queries whose random numbers are drawn together.
DRAWN_AT_ONCE = 100

#: Moves after which the share p of the pixels that a square covers is halved, out of 10,000.
_HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Square(NormedAttack):
    """x₀ = x ± ε in stripes one pixel wide; then each move sets a square of side √(p·h·w) to x ± ε, one sign for each
    channel, and is kept where the margin z_y - max z_other falls. p shrinks from `first_share`: algorithms 1 and 2.

    In L2 each move shifts length of the change into a square, as `squares.Bumps` says: algorithm 3.

    A strong score-based attack, whose success where gradients fail reveals masking. Each image has a separate stream of
    random numbers, and is not changed further once it is lost. The published code puts one square on all images and
    never at the last row or column; here no image depends on its batch and all positions are equally likely, as in the
    paper.
    """

    name = "square"
    label = "Square"
    citation = "Andriushchenko et al. 2020, Square attack, arXiv 1912.00049, algorithms 1 to 3"
    tags = frozenset({"random"})

    #: Queries of the model per image, the clean image included. AutoAttack's number.
    queries: Annotated[int, integer(2)] = 5000
    #: Share of the pixels that the first squares cover. AutoAttack's number.
    first_share: Annotated[float, within("(0, 1]")] = 0.8
    #: Whether the schedule of p is stretched or shrunk to the number of queries. It is written for 10,000.
    rescaled: bool = True

    def run(self, problem: Problem, epsilon: float) -> Tensor:
        images = problem.images
        count, _, height, width = images.shape
        move = moves(self.norm, images, epsilon)
        # Few numbers for each image and query: drawn on the CPU for many queries together, on every device.
        streams = problem.streams_of_host
        first = streams.uniform(range(count), *move.first)
        draws: Iterator[Tensor] = iter(())
        best, queries = images.clone(), torch.ones(count, dtype=torch.int64, device=images.device)
        margins = torch.full((count,), math.inf, dtype=images.dtype, device=images.device)
        # An image that is lost already stays as it is.
        active = problem.alive.nonzero().flatten()
        done = torch.zeros(len(active), dtype=torch.bool, device=images.device)
        for number in range(self.queries - 1):
            if number % problem.looks_every == 0:
                active = active[~done]
                done = torch.zeros(len(active), dtype=torch.bool, device=images.device)
                if len(active) == 0:
                    break
            clean, labels, current, least = images[active], problem.labels[active], best[active], margins[active]
            if number == 0:
                proposed = move.start(clean, first[active])
            else:
                side = self.side(number - 1, height, width)
                if (number - 1) % DRAWN_AT_ONCE == 0:
                    coming = min(DRAWN_AT_ONCE, self.queries - 1 - number)
                    draws = iter(streams.uniform(range(count), coming, move.numbers).unbind(dim=1))
                proposed = move.moved(clean, current, next(draws)[active], side)
            proposed = proposed.clamp(0, 1)
            outputs = problem.outputs(proposed)
            queries.index_add_(0, active, (~done).long())
            new_margins = margin(outputs, labels).to(images.dtype)
            lost = problem.lost(outputs, active)
            better = ((new_margins < least) | lost) & ~done
            margins.index_copy_(0, active, torch.where(better, new_margins, least))
            best.index_copy_(0, active, torch.where(better[:, None, None, None], proposed, current))
            done = done | lost
        problem.told = Told(queries=queries)
        return best

    def side(self, move: int, height: int, width: int) -> int:
        """Side of the square of the move with this number, from 0."""
        position = move * 10_000 // self.queries if self.rescaled else move
        share = self.first_share / 2 ** sum(position > after for after in _HALVINGS)
        side = max(round(math.sqrt(share * height * width)), 1)
        if self.norm == "l2":
            # Odd, so that a bump has a middle.
            side = max(side, 3) | 1
        return min(side, height, width)

    def cost(self, epsilons: int, clean: bool) -> Cost:
        # The clean images are the first query of every epsilon.
        return Cost(forwards=1 + epsilons * self.queries, gradients=0)

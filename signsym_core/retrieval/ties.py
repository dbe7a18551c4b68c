"""Average precision within the first k in expectation over every order of items at one distance, in closed form.

Legend: q queries, d database items.
"""

from __future__ import annotations

import torch
from torch import Tensor

#: Entries of a chunk's [queries, relevant items, places] values.
CHUNK = 1 << 22


def expected(twice: Tensor, relevant: Tensor, cut: int) -> Tensor:
    """AP@`cut` of each query, float64 [q], from twice the distances, float32 [q, d], and from `relevant`, bool [q, d].

    `twice` is changed.
    """
    rows, bins = len(twice), int(twice.max()) // 2 + 1
    # How many items and how many relevant ones stand at each distance is all that the expectation needs: one count
    # over slots (query, distance, relevant). Whole numbers are exact in float32 up to 2^24; int32 counts fastest.
    first = torch.arange(rows, device=twice.device, dtype=torch.float32) * (2 * bins)
    slots = twice.add_(relevant).add_(first.unsqueeze(1)).to(torch.int32)
    counted = torch.bincount(slots.flatten(), minlength=rows * 2 * bins).view(rows, bins, 2)
    hits, items = counted[:, :, 1], counted.sum(dim=2)
    before, hits_before = items.cumsum(dim=1) - items, hits.cumsum(dim=1) - hits
    harmonic = torch.zeros(cut + 1, dtype=torch.float64, device=twice.device)
    harmonic[1:] = (1 / torch.arange(1, cut + 1, dtype=torch.float64, device=twice.device)).cumsum(dim=0)
    # Ties that lie completely within the first k, and then at most one that k cuts.
    complete = before + items <= cut
    gained = _gain(hits, items, hits_before, before, harmonic)
    sums = torch.where(complete, gained, 0.0).sum(dim=1)
    counts = torch.where(complete, hits, 0).sum(dim=1)
    result = sums / counts.clamp(min=1)
    row, tie = (~complete & (before < cut)).nonzero(as_tuple=True)
    size = max(1, CHUNK // (8 * cut))
    for start in range(0, len(row), size):
        queries, where = row[start : start + size], tie[start : start + size]
        cutting = (hits[queries, where], items[queries, where], before[queries, where])
        result[queries] = _cut_tie(sums[queries], counts[queries], *cutting, cut, harmonic)
    return result


def _gain(hits: Tensor, items: Tensor, hits_before: Tensor, before: Tensor, harmonic: Tensor) -> Tensor:
    """The expected sum of rel(i) · hits(i) / i over the places of one tie, with every order of it equally likely.

    A place holds a relevant item with probability r/n; given that it does, each earlier place of the tie does with
    c = (r - 1) / (n - 1): Σ_{i=1..n} r/n · (R + 1 + c (i - 1)) / (N + i), with R hits and N items before the tie.
    """
    # Quotients of whole numbers would be float32.
    hits, items = hits.double(), items.double()
    last = harmonic[(before + items.long()).clamp(max=len(harmonic) - 1)]
    spread = last - harmonic[before.clamp(max=len(harmonic) - 1)]
    other = (hits - 1).clamp(min=0) / (items - 1).clamp(min=1)
    return hits / items.clamp(min=1) * ((hits_before + 1 - other * (before + 1)) * spread + other * items)


def _cut_tie(
    sums: Tensor, counts: Tensor, hits: Tensor, items: Tensor, before: Tensor, cut: int, harmonic: Tensor
) -> Tensor:
    """The expected AP of queries whose last tie is cut: the mean over h, the relevant items above the cut.

    h of `items` drawn m at a time with `hits` relevant is hypergeometric; given h, they are spread over the m places
    as over a whole tie.
    """
    above_cut = cut - before
    least = (above_cut - (items - hits)).clamp(min=0)
    most = torch.minimum(hits, above_cut)
    steps = torch.arange(int((most - least).max()) + 1, device=hits.device)
    drawn = least.unsqueeze(1) + steps
    possible = drawn <= most.unsqueeze(1)
    drawn = drawn.minimum(most.unsqueeze(1))
    hits, items, above_cut, before = (values.unsqueeze(1) for values in (hits, items, above_cut, before))
    logs = _log_choose(hits, drawn) + _log_choose(items - hits, above_cut - drawn) - _log_choose(items, above_cut)
    weights = torch.where(possible, logs.exp(), 0.0)
    weights /= weights.sum(dim=1, keepdim=True)
    hits_above = counts.unsqueeze(1) + drawn
    precision = (sums.unsqueeze(1) + _gain(drawn, above_cut, counts.unsqueeze(1), before, harmonic)) / hits_above.clamp(
        min=1
    )
    return (weights * precision).sum(dim=1)


def _log_choose(n: Tensor, k: Tensor) -> Tensor:
    n, k = n.double(), k.double()
    return torch.lgamma(n + 1) - torch.lgamma(k + 1) - torch.lgamma(n - k + 1)

"""Hamming ranking and its score: average precision within the first k, without sorting and with ties resolved exactly.

Codes have few bits, so thousands of database items have one distance to a query, and a ranking must break these ties.
`expected` averages over every order within the ties, in closed form, so the score does not depend on how the database
is sorted; `stable` takes the database's order, to compare with other code; `features` takes the order of the squared
Euclidean distance of the real-valued outputs at length 1, as the authors' code of 2024 does.

Legend: q queries, d database items, b bits, c classes; distances are whole numbers of bits, 0 .. b.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from signsym_core.retrieval.codes import Codes as Codes
from signsym_core.retrieval.codes import Gallery as Gallery
from signsym_core.retrieval.codes import signs as signs
from signsym_core.validation import binary_codes, check_code_labels, shown, whole_number

#: How the order of items at one distance is decided.
Ties = Literal["expected", "stable", "features"]
#: Entries of a chunk's [queries, database] matrices.
CHUNK = 1 << 22


def mean_average_precision(
    query_codes: Tensor,
    query_labels: Tensor,
    database_codes: Tensor,
    database_labels: Tensor,
    k: int | None = None,
    ties: Ties = "expected",
    query_features: Tensor | None = None,
    database_features: Tensor | None = None,
) -> float:
    """mAP@k, 0 .. 1: the mean over queries of `average_precision`.

    Codes are [n, b], bool or numbers that are exactly -1 and +1: both bool or neither. Labels are int64 [n] from 0 on,
    or 0/1 [n, c], of one kind in both; all four are on one device. `k` is a whole number, at least 1, or None; `ties`
    is "expected", "stable", or "features", which needs the real-valued outputs of both sides. Raises
    ValueError for anything else, such as codes of 0 and 1 (take `codes.bool()`) and real outputs (take their signs).
    """
    sides = (("query", query_codes, query_labels), ("database", database_codes, database_labels))
    (queries, query_kind), (database, database_kind) = (_side(*side) for side in sides)
    if (query_kind == torch.bool) != (database_kind == torch.bool):
        raise ValueError(f"codes must both be bool or both -1 and +1, got {query_kind} and {database_kind}")
    queries = dataclasses.replace(queries, features=query_features)
    database = dataclasses.replace(database, features=database_features)
    return float(average_precision(queries, database, k, ties).mean())


def _side(side: str, codes: Tensor, labels: Tensor) -> tuple[Codes, torch.dtype]:
    """Codes and labels of the queries or of the database, and the type of the given codes."""
    clean = binary_codes(codes, f"{side}_codes")
    check_code_labels(labels, len(clean), clean.device, f"{side}_labels")
    return Codes(signs=clean, labels=labels), codes.dtype


def average_precision(queries: Codes, database: Codes, k: int | None = None, ties: Ties = "expected") -> Tensor:
    """AP@k of each query: float64 [q] in 0 .. 1, on the device of the codes.

    AP@k = (1/h) Σ_{i ≤ k} rel(i) · hits(i) / i, over the ranking by Hamming distance; h is the number of relevant
    items within the first k (not in the whole database), as in HashNet's and DeepHash's protocol. A query without a
    relevant item among them has AP 0 and counts in a mean. k None or above the size of the database: all of it.

    `expected` is the exact mean over all orders within ties; where k cuts a tie, the number of relevant items above
    the cut is itself random (hypergeometric), and so h is. (McSherry, Najork 2008, Computing information retrieval
    performance measures efficiently in the presence of tied scores; the conditioning on h is ours.)

    `features` ranks the items at one Hamming distance by the squared Euclidean distance of the outputs at length 1 (0
    where an output is 0), computed in double precision, and items at one such distance too by the database's order.

    Raises ValueError where codes or labels do not fit each other, and for `features` without outputs.
    """
    _check(queries, database)
    cut = len(database) if k is None else min(whole_number("k", k, 1), len(database))
    if not isinstance(ties, str) or ties not in get_args(Ties):
        raise ValueError(f"ties must be {' or '.join(map(repr, get_args(Ties)))}, got {ties!r:.60}")
    if ties == "features":
        return _by_features(queries, database, cut)
    score = _expected if ties == "expected" else _stable
    scores = [
        score(twice, relevance(queries.labels[rows], database.labels), cut)
        for rows, twice in _distances(queries.signs, database)
    ]
    return torch.cat(scores)


def chance(queries: Codes, database: Codes, k: int | None = None) -> float:
    """The expected mAP@k of a random ranking, computed as that of a database in which all codes are equal."""
    same = dataclasses.replace(database, signs=torch.ones_like(database.signs))
    return float(average_precision(queries, same, k).mean())


def nearest(codes: Tensor, database: Codes) -> Tensor:
    """int64 [q]: the first database item at the least distance of each code, ±1 [q, b]."""
    return torch.cat([twice.argmin(dim=1) for _, twice in _distances(codes, database)])


def relevance(one: Tensor, other: Tensor) -> Tensor:
    """bool [n, m]: which of n and m labels (int64 [n], or 0/1 [n, c]) share one."""
    if one.ndim == 1:
        return one.unsqueeze(1) == other
    return (one.float() @ other.float().T) > 0


def _distances(codes: Tensor, database: Codes) -> Iterator[tuple[slice, Tensor]]:
    """Twice the distances of a chunk of codes, float32 [rows, d], with the chunk's slice; bounded in memory."""
    # Sums of so few ones are exact in float32, whose matrix product is the fastest.
    items, bits = database.signs.float().T.contiguous(), codes.shape[1]
    rows = max(1, min(CHUNK // len(database), (1 << 23) // (bits + 1)))
    for start in range(0, len(codes), rows):
        chunk = slice(start, start + rows)
        yield chunk, (codes[chunk].float() @ items).neg_().add_(bits)


def _by_features(queries: Codes, database: Codes, cut: int) -> Tensor:
    if queries.features is None or database.features is None:
        without = " and ".join(n for n, c in (("queries", queries), ("database", database)) if c.features is None)
        raise ValueError(f"ties 'features' expects codes with features, the real-valued outputs; {without}: without")
    sought, items = (nn.functional.normalize(side.features.double(), dim=1) for side in (queries, database))  # type: ignore[union-attr]
    scores = []
    for rows, twice in _distances(queries.signs, database):
        apart = 2 - 2 * (sought[rows] @ items.T)
        # A distance is at most 4, so that ten for each bit keep the order of Hamming distances.
        order = (5 * twice.double() + apart).sort(dim=1, stable=True).indices[:, :cut]
        scores.append(_ranked(relevance(queries.labels[rows], database.labels), order, cut))
    return torch.cat(scores)


def _stable(twice: Tensor, relevant: Tensor, cut: int) -> Tensor:
    return _ranked(relevant, _order(twice)[:, :cut], cut)


def _ranked(relevant: Tensor, order: Tensor, cut: int) -> Tensor:
    ranked = relevant.gather(1, order).double()
    ranks = torch.arange(1, cut + 1, device=relevant.device, dtype=torch.float64)
    hits = ranked.cumsum(dim=1)
    return (ranked * hits / ranks).sum(dim=1) / hits[:, -1].clamp(min=1)


def _order(twice: Tensor) -> Tensor:
    """Places by distance, equal ones in the database's order."""
    if twice.is_cuda:
        return twice.sort(dim=1, stable=True).indices
    # NumPy uses radix sort for short integers, which is ten times as fast here as a comparison sort.
    short = twice.to(torch.uint8 if twice.max() < 256 else torch.int16)
    return torch.from_numpy(np.argsort(short.numpy(), axis=1, kind="stable"))


def _expected(twice: Tensor, relevant: Tensor, cut: int) -> Tensor:
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


def _check(queries: Codes, database: Codes) -> None:
    for what, codes in (("queries", queries), ("database", database)):
        if not isinstance(codes, Codes):
            raise ValueError(f"{what} must be Codes(signs=..., labels=...), got {shown(codes)}")
    if queries.signs.device != database.signs.device:
        devices = f"{queries.signs.device} and {database.signs.device}"
        raise ValueError(f"codes of queries and database must be on one device, got {devices}")
    if queries.signs.shape[1] != database.signs.shape[1]:
        raise ValueError(f"queries have {queries.signs.shape[1]} bits and the database {database.signs.shape[1]}")
    if queries.labels.shape[1:] != database.labels.shape[1:]:
        shapes = f"{list(queries.labels.shape)} and {list(database.labels.shape)}"
        raise ValueError(f"labels of queries and database must be of one kind, got {shapes}")

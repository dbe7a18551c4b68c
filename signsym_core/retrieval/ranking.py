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

from signsym_core.retrieval.codes import Codes
from signsym_core.retrieval.ties import expected
from signsym_core.retrieval.validation import binary_codes, check_code_labels
from signsym_core.validation import shown, whole_number

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
    score = expected if ties == "expected" else _stable
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

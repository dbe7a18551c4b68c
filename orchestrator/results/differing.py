"""Cells that two files have with different values, of one store or of two, in sentences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from orchestrator.results.categories import Numbers
from orchestrator.results.rows import Rows

#: Pairs of files that disagree and are named, at most.
MOST = 5
#: A file, another one, and of a cell in both its key and the two values.
Difference = tuple[str, str, str, float, float]


def different(index: Rows, rows: Numbers, other: Rows, other_rows: Numbers) -> NDArray[np.bool_]:
    """Which rows of one cell, row by row, have another value or number of images."""
    unlike = np.zeros(len(rows), dtype=bool)
    for column in ("value", "n"):
        value, other_value = index.numbers(column, rows), other.numbers(column, other_rows)
        unlike |= (value != other_value) & ~(np.isnan(value) & np.isnan(other_value))
    return unlike


def sentences(differences: Iterable[Difference], advice: str) -> list[str]:
    """A sentence for each pair of files, which ends with the `advice`, of at most MOST."""
    pairs: dict[tuple[str, str], list[str]] = {}
    for path, other_path, cell, value, other_value in differences:
        pairs.setdefault((path, other_path), []).append(f"{cell[:16]} ({value:.4g} and {other_value:.4g})")
    said = [
        f"{path} and {other_path} have different values of {len(words)} cell{'s' * (len(words) > 1)}, such as "
        f"{words[0]}: {advice}"
        for (path, other_path), words in itertools.islice(pairs.items(), MOST)
    ]
    if len(pairs) > MOST:
        said.append(f"... and {len(pairs) - MOST:,} more pairs of files have different values of the same cells.")
    return said

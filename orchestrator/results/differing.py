"""Cells that two files have with different values, of one store or of two, in sentences."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
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


def repeated(rows: pa.Table) -> list[str]:
    """What is said of cells that rows of results give two values, without the names of the files that have them."""
    counts = rows.group_by("cell").aggregate([("value", "count_distinct"), ("n", "count_distinct")])
    several = [pc.greater(counts[f"{column}_count_distinct"], 1) for column in ("value", "n")]
    cells = counts.filter(pc.or_(*several))["cell"]
    if not len(cells):
        return []
    count = f"{len(cells):,} cell{'s' * (len(cells) > 1)}, such as {cells[0].as_py()[:16]},"
    advice = "of which that finished first counts; signsym status --verify names the files"
    return [f"{count} were computed twice with different values, {advice}"]


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

"""Whether outcomes add up to the results that were stored with them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.rows import ROUNDING

#: The end of each reason for results that cannot be trusted.
NOT_DONE = "its cells count as not done"
#: The columns that a tally needs.
COLUMNS = ["cell", "image", "robust", "ap"]
#: The cells of some results, their numbers of images and their values.
Expected = tuple[pa.Array, NDArray[np.int64], NDArray[np.float64]]


@dataclasses.dataclass(frozen=True)
class OutcomeTally:
    """The number and mean of the outcomes of some cells."""

    cells: pa.Array
    #: For each cell its number of different images, and the mean of its outcomes.
    counts: NDArray[np.int64]
    means: NDArray[np.float64]


def tally(outcomes: pa.Table) -> OutcomeTally:
    """The tally of a table of outcomes, whose cells are dictionary-encoded."""
    cells, (counts, means) = single(outcomes["cell"]).dictionary, counted(outcomes)
    if counts.all():
        return OutcomeTally(cells, counts, means)
    # Files that were read together share a dictionary.
    used = np.flatnonzero(counts)
    return OutcomeTally(cells.take(to_arrow(used)), counts[used], means[used])


def counted(outcomes: pa.Table) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """For each cell of the dictionary of a table its number of different images, and their mean; NaN for none."""
    column = single(outcomes["cell"])
    codes = to_numpy(column.indices)
    robust, precision = single(outcomes["robust"]), single(outcomes["ap"])
    scores = to_numpy(robust).astype(np.float64)
    if precision.null_count < len(precision):
        scores = np.where(to_numpy(precision.is_valid()), to_numpy(precision), scores)
    rows = first_rows(outcomes)
    if rows is not None:
        codes, scores = codes[rows], scores[rows]
    counts = np.bincount(codes, minlength=len(column.dictionary))
    return counts, np.bincount(codes, scores, len(counts)) / np.where(counts, counts, np.nan)


def first_rows(outcomes: pa.Table) -> NDArray[np.int64] | None:
    """The rows of a table that count, sorted by cell and image: of an image that is repeated in a cell the first.

    None where all do, and are sorted already.
    """
    codes, images = to_numpy(single(outcomes["cell"]).indices), to_numpy(single(outcomes["image"]))
    pairs = (codes.astype(np.int64) << 32) + images
    if (pairs[1:] > pairs[:-1]).all():
        return None
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    counted_rows: NDArray[np.int64] = order[np.append(True, pairs[1:] != pairs[:-1])]
    return counted_rows


def joined(tallies: Sequence[OutcomeTally]) -> OutcomeTally:
    """Several tallies, at least one, as one."""
    counts, means = ([getattr(sums, name) for sums in tallies] for name in ("counts", "means"))
    return OutcomeTally(
        pa.concat_arrays([sums.cells for sums in tallies]), np.concatenate(counts), np.concatenate(means)
    )


def sound_files(
    results: Expected, result_sizes: Sequence[int], outcomes: pa.Table, outcome_sizes: Sequence[int]
) -> NDArray[np.bool_]:
    """Which of several files of results have all their outcomes, and no others, in the file of the same name.

    `results` and `outcomes` are those of all files one by one, of so many rows each. Looked at together, since one by
    one takes most of the time that small files take; why another file is not sound is left to be found.
    """
    cell_of_outcome, cells = to_numpy(single(outcomes["cell"]).indices), single(outcomes["cell"]).dictionary
    counts, means = counted(outcomes)
    file_of_result, file_of_outcome = (
        np.repeat(np.arange(len(sizes)), sizes) for sizes in (result_sizes, outcome_sizes)
    )
    file_of_cell = np.full(len(cells), -1)
    file_of_cell[cell_of_outcome] = file_of_outcome
    positions = places(results[0], cells)
    here = np.zeros(len(positions), dtype=bool)
    here[positions >= 0] = file_of_cell[positions[positions >= 0]] == file_of_result[positions >= 0]
    rows = np.flatnonzero(here)
    results_of_cell = np.bincount(positions[rows], minlength=len(cells))
    # A cell whose outcomes are in two files, or that has no result or two in its file, and a result without outcomes.
    elsewhere = file_of_cell[cell_of_outcome] != file_of_outcome
    sound = np.ones(len(result_sizes), dtype=bool)
    sound[file_of_outcome[elsewhere]] = False
    sound[file_of_cell[cell_of_outcome[elsewhere]]] = False
    sound[file_of_cell[(counts > 0) & (results_of_cell != 1)]] = False
    sound[file_of_result[~here]] = False
    wrong = differ(results, rows, counts[positions[rows]], means[positions[rows]])
    sound[file_of_result[rows[wrong]]] = False
    return sound


def expected(results: pa.Table) -> Expected:
    """The cells, numbers and means that the outcomes of some results must have."""
    return single(results["cell"]), to_numpy(single(results["n"])), to_numpy(single(results["value"]))


def places(cells: pa.Array, all_cells: pa.Array) -> NDArray[np.int64]:
    """The position of each of `cells` in `all_cells`; -1 where it is missing."""
    if all_cells.equals(cells):
        return np.arange(len(cells))
    positions = pc.index_in(cells, value_set=all_cells)
    return to_numpy(pc.fill_null(positions, -1) if positions.null_count else positions).astype(np.int64)


def differ(
    results: Expected, rows: NDArray[np.int64], counts: NDArray[np.int64], means: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Which of some `rows` of results have other outcomes, of these counts and means, than they say."""
    _, n, values = results
    different: NDArray[np.bool_] = (counts != n[rows]) | ~(np.abs(means - values[rows]) <= ROUNDING)
    return different


def misfit(results: Expected, positions: NDArray[np.int64], sums: OutcomeTally, exclusive: bool = True) -> str:
    """Why outcomes do not belong to `results`, whose positions in `sums` are `positions`; "" where they do.

    With `exclusive` there must be no outcomes of other results.
    """
    cells, n, values = results
    rows = np.flatnonzero(positions >= 0)
    counts, means = sums.counts[positions[rows]], sums.means[positions[rows]]
    wrong = np.flatnonzero(differ(results, rows, counts, means))
    if len(wrong):
        row = int(rows[wrong[0]])
        words = f"cell {cells[row].as_py()[:16]} has {counts[wrong[0]]} outcomes of mean {means[wrong[0]]:g}, its"
        return f"{words} result is {values[row]:g}, n = {n[row]}; {NOT_DONE}"
    here = np.zeros(len(sums.counts), dtype=bool)
    here[positions[rows]] = True
    if exclusive and (more := np.count_nonzero(sums.counts) - np.count_nonzero(here)):
        return f"{more} of its cells have no result in the file of the same name; {NOT_DONE}"
    return ""


def missing(lost: int, results: int) -> str:
    """The reason for results without outcomes in any file."""
    return f"missing: {lost} of the {results} results of the same name have no outcomes; {NOT_DONE}"

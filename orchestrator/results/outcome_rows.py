"""The outcomes of cells as rows of a tidy table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import pyarrow as pa

from orchestrator.store import tables
from orchestrator.store.arrays import single, to_arrow, to_numpy
from orchestrator.store.filerows import FileRows
from orchestrator.store.folder import Folder
from orchestrator.store.progress import Progress
from orchestrator.store.store import Store
from orchestrator.store.tally import counted, differ, expected, first_rows, places

#: What was measured of an image.
_MEASURED = ("image", "robust", "ap", "linf", "zero_grad", "confidence", *tables.MEASURES)
#: Most rows of one table.
AT_ONCE = 1 << 17


def outcome_rows(store: Store, cells: pa.Table, names: Sequence[str], progress: Progress) -> Iterator[pa.Table]:
    """A row for each image of each cell, from the first file whose outcomes of the cell add up to its result.

    Two sweeps that computed a cell, and a merge that was killed, leave its outcomes in two files. `cells` has a result
    of each, with the columns `names` that are repeated.
    """
    folder = Folder(store, "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)
    results, left = expected(cells), np.ones(len(cells), dtype=bool)
    for files in folder.iter_batches():
        for table in _without_repeats(files):
            codes, (counts, means) = to_numpy(single(table["cell"]).indices), counted(table)
            # The row of `cells` of each cell that the table may have.
            row_of = places(single(table["cell"]).dictionary, results[0])
            here = np.flatnonzero((counts > 0) & (row_of >= 0))
            here = here[left[row_of[here]]]
            here = here[~differ(results, row_of[here], counts[here], means[here])]
            left[row_of[here]] = False
            chosen = np.zeros(len(counts), dtype=bool)
            chosen[here] = True
            first = first_rows(table)
            rows = np.arange(len(table)) if first is None else first
            rows = rows[chosen[codes[rows]]]
            for start in range(0, len(rows), AT_ONCE):
                few = rows[start : start + AT_ONCE]
                described, of_images = cells.take(to_arrow(row_of[codes[few]])), table.take(to_arrow(few))
                columns = {name: described[name] for name in ("cell", *names)}
                yield pa.table(columns | {name: of_images[name] for name in _MEASURED})
        progress("cells whose outcomes are written", int((~left).sum()), len(left))
    store.skipped |= folder.skipped
    store.unsealed |= folder.unsealed


def _without_repeats(files: FileRows) -> Iterator[pa.Table]:
    """The rows of all files together, which takes a tenth of the time; one by one where two of them have one cell."""
    if not files:
        return
    together = files.together(tables.OUTCOMES.names)
    codes = to_numpy(single(together["cell"]).indices)
    file = np.repeat(np.arange(len(files)), [*files.lengths.values()])
    last = np.zeros(len(single(together["cell"]).dictionary), dtype=np.int64)
    last[codes] = file
    if (last[codes] == file).all():
        yield together
    else:
        yield from files.values()

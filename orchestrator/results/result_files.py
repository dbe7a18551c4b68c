"""The files of results of a store, as its index takes them."""

from __future__ import annotations

import pyarrow as pa

from orchestrator.results.line import STORED
from orchestrator.store import tables
from orchestrator.store.filerows import ReadFiles
from orchestrator.store.folder import Folder
from orchestrator.store.store import Store

#: Columns that pages need of every row; the others are read for the single row that is shown.
COLUMNS = (
    *STORED,
    *("cell", "job", "finetune_job", "seed", "epsilon", "epsilon_label", "norm", "value", "n", "chance"),
    *("steps", "step_size", "reach", "nonfinite_grad", "finetune_epoch", "finished_at", "revision"),
    *("surrogate_job", "precision", "device", "finetune_precision", "finetune_device", "versions"),
)


def results_of(store: Store) -> Folder:
    """The files of results of a store."""
    # Arrow's default pool takes twice the time for many files where new memory is expensive: 1.3 s, not 0.6, for a
    # million results.
    pa.set_memory_pool(pa.system_memory_pool())
    return Folder(store, "results", tables.RESULTS, COLUMNS, plain={"cell"})


def read_results(storage: str) -> ReadFiles:
    """The results of a store, as `LiveStore` takes them: they may be read in another process."""
    return results_of(Store(storage)).read_all()

"""The epochs of fine-tunes as rows of a tidy table."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from orchestrator.results.histories import Histories, History
from orchestrator.store import tables
from orchestrator.store.alignment import alignment_folder, iter_trainings
from orchestrator.store.folder import Folder
from orchestrator.store.progress import Progress
from orchestrator.store.store import Store

#: Fine-tunes whose epochs are in memory at once.
TOGETHER = 100
#: Columns of an epoch, in front of those of a layer.
_EPOCH = pa.schema(
    [
        ("job", pa.string()),
        ("epoch", pa.int64()),
        ("loss", pa.float64()),
        ("validation", pa.float64()),
        ("kept", pa.bool_()),
        ("clean", pa.float64()),
    ]
)


def epoch_rows(store: Store, models: pa.Table, names: Sequence[str], progress: Progress) -> Iterator[pa.Table]:
    """A row for each epoch of each of some models, and for each layer where its alignment is stored.

    `models` has a result of each, that of its clean score where there is one, with the columns `names` that are
    repeated. `kept` is whether the model of the epoch was kept, and `clean` the score of that model on clean images.
    """
    folder, histories = alignment_folder(store), Histories(store)
    layers = [field for field in tables.ALIGNMENT if field.name not in ("job", "epoch")]
    schema = pa.schema([*_EPOCH, *layers, *(tables.RESULTS.field(name) for name in names)])
    row_of = {job: row for row, job in enumerate(models["finetune_job"].to_pylist())}
    written = 0
    for aligned in _together(folder, row_of):
        few = models.take(pa.array([row_of[job] for job in aligned], pa.int64())).to_pylist()
        epochs, rows = histories.of(aligned), []
        for model in few:
            job, history = model["finetune_job"], epochs.get(model["finetune_job"], History())
            by_epoch = {one.epoch: one for one in history.epochs}
            by_layer = aligned[job]
            bare = [{"epoch": epoch} for epoch in by_epoch.keys() - {row["epoch"] for row in by_layer}]
            for row in sorted((*by_layer, *bare), key=lambda row: int(row["epoch"])):
                one, kept = by_epoch.get(row["epoch"]), row["epoch"] == history.kept
                clean = model["value"] if kept and model["attack"] == "none" else None
                of_epoch = {} if one is None else {"loss": one.loss, "validation": one.validation}
                rows.append(model | row | of_epoch | {"job": job, "kept": kept, "clean": clean})
        if rows:
            yield pa.Table.from_pylist(rows, schema)
        written += len(few)
        progress("trainings written", written, len(models))
    store.skipped |= folder.skipped | histories.skipped


def _together(folder: Folder, jobs: Collection[str]) -> Iterator[dict[str, list[dict[str, Any]]]]:
    """Each of some trainings with the rows of its layers, about TOGETHER at once; those without any come last.

    The folder is listed once, and each file read once.
    """
    few, done = dict[str, list[dict[str, Any]]](), set[str]()
    for table in iter_trainings(folder, jobs):
        # A merged file has thousands of trainings.
        of_table = table["job"].unique()
        for start in range(0, len(of_table), TOGETHER):
            chosen = of_table.slice(start, TOGETHER)
            rows = table if len(of_table) <= TOGETHER else table.filter(pc.is_in(table["job"], value_set=chosen))
            for row in rows.to_pylist():
                few.setdefault(row["job"], []).append(row)
            if len(few) >= TOGETHER:
                yield few
                done |= few.keys()
                few = {}
    for job in (job for job in jobs if job not in done | few.keys()):
        few[job] = []
        if len(few) >= TOGETHER:
            yield few
            few = {}
    if few:
        yield few

"""The epochs of fine-tunes as rows of a tidy table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import pyarrow as pa

from orchestrator.results.alignment import Alignment
from orchestrator.results.histories import Histories, History
from orchestrator.store import tables
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
    alignment, histories = Alignment(store), Histories(store)
    layers = [field for field in tables.ALIGNMENT if field.name not in ("job", "epoch")]
    schema = pa.schema([*_EPOCH, *layers, *(tables.RESULTS.field(name) for name in names)])
    for start in range(0, len(models), TOGETHER):
        few = models.slice(start, TOGETHER).to_pylist()
        jobs = [model["finetune_job"] for model in few]
        epochs, aligned = histories.of(jobs), alignment.by_training(jobs)
        rows = []
        for model in few:
            job, history = model["finetune_job"], epochs.get(model["finetune_job"], History())
            by_epoch = {one.epoch: one for one in history.epochs}
            by_layer = aligned.get(job, ())
            bare = [{"epoch": epoch} for epoch in by_epoch.keys() - {row["epoch"] for row in by_layer}]
            for row in sorted((*by_layer, *bare), key=lambda row: int(row["epoch"])):
                one, kept = by_epoch.get(row["epoch"]), row["epoch"] == history.kept
                clean = model["value"] if kept and model["attack"] == "none" else None
                of_epoch = {} if one is None else {"loss": one.loss, "validation": one.validation}
                rows.append(model | row | of_epoch | {"job": job, "kept": kept, "clean": clean})
        if rows:
            yield pa.Table.from_pylist(rows, schema)
        progress("trainings written", start + len(few), len(models))
    store.skipped |= alignment.skipped | histories.skipped

"""Tidy tables of stores for further analysis: one file, a row for each observation, full precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.parquet as pq

from orchestrator.results.computed_tables import COMPUTED, computed_table, left_out
from orchestrator.results.differing import repeated
from orchestrator.results.epoch_rows import epoch_rows
from orchestrator.results.index import Index
from orchestrator.results.joined import JoinedIndex
from orchestrator.results.line import ATTACK, STORED
from orchestrator.results.live_stores import LiveStores, Results, opened
from orchestrator.results.mixtures import mixtures
from orchestrator.results.outcome_rows import outcome_rows
from orchestrator.results.result_files import COLUMNS
from orchestrator.results.test_images import test_images
from orchestrator.store import tables
from orchestrator.store.alignment import alignment_folder, iter_trainings
from orchestrator.store.arrays import flags, single, to_arrow, to_numpy
from orchestrator.store.filerows import FileRows
from orchestrator.store.progress import Progress, silent
from orchestrator.store.store import Store, first_of_each_cell, skipped_in

#: Columns of a cell that are repeated for each of its outcomes: all that tells it from others, so that no mean is one
#: of two attacks or norms.
_NAMES = (*STORED, "seed", "epsilon", "epsilon_label", "norm")
#: Columns of a model that are repeated for each of its layers, likewise.
_MODEL = (*(name for name in STORED if name not in ATTACK), "seed")
#: What a model is found by, and its clean score.
_OF_MODELS = ("cell", "finetune_job", *_MODEL, "attack", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and what was left out."""

    rows: int
    #: Files that could not be used, with the reason.
    skipped: Mapping[str, str]
    #: A sentence for each pair of files of two stores that have different values of one cell, and for each line or
    #: model that is left out of a computed table.
    problems: Sequence[str]


#: What makes those tables that not every sweep has something for.
_ASKED_BY = {
    "geometry": "the attack geometry",
    "calibration": "clean evaluations of classification, by versions that store confidences, on images with one label",
    "transfer": "attacks with gradient: transfer",
    "corruptions": "a data set with corruption: all, such as {name: digits, corruption: all, severity: all}",
    "notes": "signsym note",
}


def export(stores: Sequence[Store], what: str, out: Path, progress: Progress = silent) -> Exported:
    """Write "results", "outcomes", "curves", "worst", "transfer", "geometry", "calibration", "corruptions",
    "alignment", "training" or "notes" of stores.

    The file's suffix is .csv or .parquet. Of several stores a column `store` names the one that a row is from. As in
    the explorer, a cell that two of them have counts once, one with two values not at all, and of cells that differ in
    the number of images that with the most. Outcomes are written batch by batch, so that they need not fit into
    memory. The file appears whole or not at all. Raises ValueError for another suffix.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {out} must end with .csv or .parquet")
    data, compared = None, what in COMPUTED or len(stores) > 1
    notices: list[str] = []
    if compared:
        data = opened([store.uri for store in stores], at_once=True)
        if what != "notes":
            data.check(progress)
    contents = (
        computed_table(data, what) if what in COMPUTED and data else _of_each(data, stores, what, notices, progress)
    )
    out.parent.mkdir(parents=True, exist_ok=True)
    temporary = out.with_name(f".{out.name}.tmp")
    rows, writer = 0, None
    try:
        for table in contents:
            if writer is None:
                make = pa.csv.CSVWriter if out.suffix == ".csv" else pq.ParquetWriter
                writer = make(temporary, table.schema)
            writer.write_table(table)
            rows += len(table)
        if writer is not None:
            writer.close()
            temporary.replace(out)
    finally:
        if writer is not None:
            writer.close()
        temporary.unlink(missing_ok=True)
    problems = notices
    if data:
        snapshot = data.snapshot
        problems = [*snapshot.problems, *snapshot.mixtures(), *(left_out(data, what) if what in COMPUTED else ())]
    for store in stores if what != "notes" else ():
        if count := len(store.names("failures", ".parquet")):
            words = f"{count:,} job{'s' * (count > 1)} of {store.uri} failed for good, so that seeds may be missing"
            problems = [*problems, f"{words}: signsym status {store.word}"]
    if writer is None:
        names = ", ".join(store.uri for store in stores)
        there_is = f"what there is, and what is damaged, says signsym status {stores[0].word}"
        asked = _ASKED_BY.get(what, f"a sweep; {there_is}")
        nothing = f"{names}: nothing of {what} is there that can be read. It is made by {asked}"
        raise ValueError("\n".join([nothing, *problems]))
    skipped = skipped_in(stores) | (data.skipped if data else {})
    return Exported(rows=rows, skipped=skipped, problems=problems)


def _of_each(
    data: Results | None, stores: Sequence[Store], what: str, notices: list[str], progress: Progress
) -> Iterator[pa.Table]:
    """The tables of each store, with its name and without what another one stands for where there are several.

    What is to be said of the results of a single one is added to `notices`.
    """
    trainings: set[str] = set()
    index = data.snapshot.index if data else None
    cells_by_store: dict[str, pa.Array | None] = {"": None}
    if isinstance(index, JoinedIndex):
        cells_by_store = {**index.cells_by_store()}
    make, columns = {
        "results": (_results, tables.RESULTS.names),
        "outcomes": (_outcomes, COLUMNS),
        "alignment": (_alignment, _OF_MODELS),
        "training": (_training, _OF_MODELS),
    }[what]
    for store, (name, cells) in zip(stores, cells_by_store.items(), strict=True):
        if isinstance(data, LiveStores):
            # Its check has read the outcomes.
            results = data.trusted_results(name, columns)
        else:
            every = store.result_rows(columns, progress)
            results = first_of_each_cell(every).select(columns)
        if columns is not _OF_MODELS and cells is None:
            computed = Index(FileRows({"": results}))
            cells = computed.counting
            notices += [*computed.notices, *repeated(every), *mixtures(computed)]
        if cells is not None:
            results = results.filter(pc.is_in(results["cell"], value_set=cells))
        if columns is _OF_MODELS:
            results = _models(results, trainings)
        for table in make(store, results, progress):
            yield table.append_column("store", pa.repeat(name, len(table))) if name else table


def _models(results: pa.Table, known: set[str]) -> pa.Table:
    """A row of each model that is not `known` yet: that of its clean score, where it was run.

    A score on corrupted test images is none.
    """
    params = pc.dictionary_encode(single(results["dataset_params"]))
    kinds = np.array([bool(test_images(text).kind) for text in params.dictionary.to_pylist()], dtype=bool)
    corrupted = kinds[to_numpy(params.indices)] if len(params) else np.zeros(0, dtype=bool)
    clean = to_numpy(single(pc.equal(results["attack"], "none"))) & ~corrupted
    values = pc.if_else(flags(corrupted), pa.scalar(None, pa.float64()), single(results["value"]))
    results = results.set_column(results.column_names.index("value"), tables.RESULTS.field("value"), values)
    first: dict[str, int] = {}
    order = np.argsort(~clean, kind="stable")
    for row, job in zip(order.tolist(), results["finetune_job"].take(to_arrow(order)).to_pylist(), strict=True):
        first.setdefault(job, row)
    rows = [row for job, row in first.items() if job not in known]
    known.update(first)
    return results.take(to_arrow(np.array(rows, dtype=np.int64)))


def _results(_store: Store, results: pa.Table, _progress: Progress) -> Iterator[pa.Table]:
    if len(results):
        yield results


def _outcomes(store: Store, cells: pa.Table, progress: Progress) -> Iterator[pa.Table]:
    return outcome_rows(store, cells, _NAMES, progress)


def _alignment(store: Store, models: pa.Table, _progress: Progress) -> Iterator[pa.Table]:
    """A row for each layer and epoch of each attacked model."""
    row_of = {job: row for row, job in enumerate(models["finetune_job"].to_pylist())}
    folder = alignment_folder(store)
    for table in iter_trainings(folder):
        owners = np.array([row_of.get(job, -1) for job in table["job"].to_pylist()], dtype=np.int64)
        if (owners >= 0).any():
            table, described = table.filter(flags(owners >= 0)), models.take(to_arrow(owners[owners >= 0]))
            for name in _MODEL:
                table = table.append_column(models.schema.field(name), described[name])
            yield table.sort_by([("job", "ascending"), ("epoch", "ascending")])
    store.skipped |= folder.skipped


def _training(store: Store, models: pa.Table, progress: Progress) -> Iterator[pa.Table]:
    return epoch_rows(store, models, _MODEL, progress)

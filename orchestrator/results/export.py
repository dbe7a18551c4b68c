"""Tidy tables of stores for further analysis: one file, a row for each observation, full precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from orchestrator.results.computed_tables import COMPUTED, computed_table, left_out
from orchestrator.results.epoch_rows import epoch_rows
from orchestrator.results.joined import JoinedIndex
from orchestrator.results.line import ATTACK, STORED
from orchestrator.results.live_stores import Results, opened
from orchestrator.results.test_images import test_images
from orchestrator.store import tables
from orchestrator.store.alignment import alignment_folder, iter_trainings
from orchestrator.store.folder import Folder
from orchestrator.store.store import Store, skipped_in
from orchestrator.store.tally import differ, expected, first_rows, places, tally

#: Columns of a cell that are repeated for each of its outcomes: all that tells it from others, so that no mean is one
#: of two attacks or norms.
_NAMES = (*STORED, "seed", "epsilon", "epsilon_label", "norm")
#: What was measured of an outcome's image besides.
_MEASURED = ("confidence", *tables.MEASURES)
#: Columns of a model that are repeated for each of its layers, likewise.
_MODEL = (*(name for name in STORED if name not in ATTACK), "seed")
#: What its clean score is found by.
_CLEAN = ("attack", "value")


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
    "transfer": "attacks with gradient: transfer",
    "corruptions": "a data set with corruption: all, such as {name: digits, corruption: all, severity: all}",
    "notes": "signsym note",
}


def export(stores: Sequence[Store], what: str, out: Path) -> Exported:
    """Write "results", "outcomes", "curves", "worst", "transfer", "geometry", "calibration", "corruptions",
    "alignment", "training" or "notes" of stores.

    The file's suffix is .csv or .parquet. Of several stores a column `store` names the one that a row is from. As in
    the explorer, a cell that two of them have counts once, one with two values not at all, and of cells that differ in
    the number of images that with the most. Outcomes are written file by file, so that they need not fit into memory.
    Raises ValueError for another suffix.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {out} must end with .csv or .parquet")
    data, compared = None, what in COMPUTED or len(stores) > 1
    if compared or what in ("results", "outcomes"):
        data = opened([store.uri for store in stores], at_once=True)
        if compared and what != "notes":
            data.check()
    contents = computed_table(data, what) if what in COMPUTED and data else _of_each(data, stores, what)
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
    finally:
        if writer is not None:
            writer.close()
    problems = [*data.snapshot.problems, *(left_out(data, what) if what in COMPUTED else ())] if data else []
    if writer is None:
        names = ", ".join(store.uri for store in stores)
        asked = _ASKED_BY.get(what, f"a sweep; what there is, and what is damaged, says signsym status {stores[0].uri}")
        nothing = f"{names}: nothing of {what} is there that can be read. It is made by {asked}"
        raise ValueError("\n".join([nothing, *problems]))
    temporary.replace(out)
    skipped = skipped_in(stores) | (data.skipped if data else {})
    return Exported(rows=rows, skipped=skipped, problems=problems)


def _of_each(data: Results | None, stores: Sequence[Store], what: str) -> Iterator[pa.Table]:
    """The tables of each store, with its name and without what another one stands for where there are several."""
    trainings: set[str] = set()
    index = data.snapshot.index if data else None
    if isinstance(index, JoinedIndex):
        cells_by_store: dict[str, pa.Array | None] = index.cells_by_store()
    else:
        cells_by_store = {"": None if index is None else index.counting}
    for store, (name, cells) in zip(stores, cells_by_store.items(), strict=True):
        models = ["finetune_job", *_MODEL]
        cells_of_outcomes = ["cell", *_NAMES, "n", "value"]
        names = {"outcomes": cells_of_outcomes, "alignment": models, "training": [*models, *_CLEAN]}.get(
            what, tables.RESULTS.names
        )
        frame = store.results(list(dict.fromkeys(["cell", *_CLEAN, "dataset_params", *names])))
        frame = frame if cells is None else frame[frame["cell"].isin(cells.to_pylist())]
        if what in ("alignment", "training"):
            # A clean score, where it was run, stands for a model; one on corrupted test images is none.
            corrupted = np.array(
                [bool(test_images(str(params)).kind) for params in frame["dataset_params"]], dtype=bool
            )
            clean = (frame["attack"] == "none").to_numpy() & ~corrupted
            frame = frame.assign(value=frame["value"].where(~corrupted)).iloc[np.argsort(~clean, kind="stable")]
            frame = frame.drop_duplicates("finetune_job")
            frame = frame[~frame["finetune_job"].isin(trainings)]
            trainings |= set(frame["finetune_job"])
        schema = pa.schema([tables.RESULTS.field(name) for name in names])
        results = pa.Table.from_pandas(frame[names], schema=schema, preserve_index=False)
        make = {"results": _results, "outcomes": _outcomes, "alignment": _alignment, "training": _training}[what]
        for table in make(store, results):
            yield table.append_column("store", pa.repeat(name, len(table))) if name else table


def _results(_store: Store, results: pa.Table) -> Iterator[pa.Table]:
    if len(results):
        yield results


def _outcomes(store: Store, cells: pa.Table) -> Iterator[pa.Table]:
    """A row for each image of each cell, from the first file whose outcomes of the cell add up to its result.

    Two sweeps that computed a cell, and a merge that was killed, leave its outcomes in two files.
    """
    folder = Folder(store, "outcomes", tables.OUTCOMES, tables.OUTCOMES.names)
    results, left = expected(cells), np.ones(len(cells), dtype=bool)
    for table in folder.iter_tables():
        sums = tally(table)
        positions = places(results[0], sums.cells)
        rows = np.flatnonzero(left & (positions >= 0))
        rows = rows[~differ(results, rows, sums.counts[positions[rows]], sums.means[positions[rows]])]
        left[rows] = False
        if len(rows):
            once = first_rows(table)
            table = (table if once is None else table.take(once)).cast(tables.OUTCOMES)
            joined = table.join(cells.take(rows), "cell", join_type="inner")
            yield joined.select(["cell", *_NAMES, "image", "robust", "ap", "linf", "zero_grad", *_MEASURED])
    store.skipped |= folder.skipped
    store.unsealed |= folder.unsealed


def _alignment(store: Store, models: pa.Table) -> Iterator[pa.Table]:
    """A row for each layer and epoch of each attacked model."""
    folder = alignment_folder(store)
    for table in iter_trainings(folder):
        joined = table.join(models, "job", "finetune_job", join_type="inner")
        if len(joined):
            yield joined.select([*tables.ALIGNMENT.names, *_MODEL]).sort_by(
                [("job", "ascending"), ("epoch", "ascending")]
            )
    store.skipped |= folder.skipped


def _training(store: Store, models: pa.Table) -> Iterator[pa.Table]:
    return epoch_rows(store, models, _MODEL)

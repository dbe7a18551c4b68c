"""Tidy tables of a store for further analysis: one file, a row for each observation, full precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from orchestrator.results.line import LINE
from orchestrator.results.live_store import LiveStore
from orchestrator.store import tables
from orchestrator.store.alignment import alignment_folder, iter_trainings
from orchestrator.store.store import Store

_ENDS = {"": "value", "_lo": "lo", "_hi": "hi"}
#: Columns of a cell that are repeated for each of its outcomes.
_NAMES = ("task", "dataset", "backbone", "rule", "seed", "attack", "gradient", "epsilon", "epsilon_label")
#: Columns of a model that are repeated for each of its layers.
_MODEL = ("task", "dataset", "backbone", "weights", "finetune", "rule", "rule_params", "seed")


def export(store: Store, what: str, out: Path) -> int:
    """Write "results", "outcomes", "curves" or "alignment" of a store to a .csv or .parquet file; the number of rows.

    Outcomes are written file by file, so that they need not fit into memory. What could not be used is named in
    `store.skipped`. Raises ValueError for another suffix.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {out} must end with .csv or .parquet")
    contents = {"results": _results, "outcomes": _outcomes, "curves": _curves, "alignment": _alignment}[what](store)
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
    if writer is None:
        raise ValueError(f"the store {store.uri} holds nothing of {what} that can be read")
    temporary.replace(out)
    return rows


def _results(store: Store) -> Iterator[pa.Table]:
    frame = store.results()
    if len(frame):
        yield pa.Table.from_pandas(frame, schema=tables.RESULTS, preserve_index=False)


def _outcomes(store: Store) -> Iterator[pa.Table]:
    names = ["cell", *_NAMES]
    schema = pa.schema([tables.RESULTS.field(name) for name in names])
    cells = pa.Table.from_pandas(store.results(names), schema=schema, preserve_index=False)
    for table in store.iter_tables("outcomes", tables.OUTCOMES):
        joined = table.join(cells, "cell", join_type="inner")
        if len(joined):
            yield joined.select(["cell", *_NAMES, "image", "robust", "ap", "linf", "zero_grad"])


def _alignment(store: Store) -> Iterator[pa.Table]:
    """A row for each layer and epoch of each attacked model."""
    names = ["finetune_job", *_MODEL]
    schema = pa.schema([tables.RESULTS.field(name) for name in names])
    frame = store.results(names).drop_duplicates("finetune_job")
    models = pa.Table.from_pandas(frame, schema=schema, preserve_index=False)
    folder = alignment_folder(store)
    for table in iter_trainings(folder):
        joined = table.join(models, "job", "finetune_job", join_type="inner")
        if len(joined):
            yield joined.select([*tables.ALIGNMENT.names, *_MODEL]).sort_by(
                [("job", "ascending"), ("epoch", "ascending")]
            )
    store.skipped |= folder.skipped


def _curves(store: Store) -> Iterator[pa.Table]:
    """A row for each point of each line, over all seeds, with its interval and its paired gap to BP."""
    data = LiveStore(store.uri, at_once=True)
    data.check()
    store.skipped |= data.skipped
    query = data.snapshot.query()
    rows = []
    for curve in query.curves(query.index.ordered):
        names = dict(zip(LINE, query.index.lines[curve.line].key, strict=True)) | {"score": curve.score_name}
        for point in curve.points:
            row = names | {"epsilon": point.epsilon, "epsilon_label": point.label, "value": point.score.value}
            row |= {"lo": point.score.lo, "hi": point.score.hi, "method": point.score.method}
            row |= {"images": point.score.n, "seeds": point.score.seeds}
            for name, gap in (("gap_to_bp", point.over_bp), ("over_exact", point.over_exact)):
                row |= {f"{name}{end}": getattr(gap, field, None) for end, field in _ENDS.items()}
            rows.append(row)
    if rows:
        numbers = {f"{name}{end}": pa.float64() for name in ("gap_to_bp", "over_exact") for end in _ENDS}
        table = pa.Table.from_pylist(rows)
        # A column of nothing but nulls would have no type.
        fields = [pa.field(f.name, numbers.get(f.name, f.type)) for f in table.schema]
        yield table.cast(pa.schema(fields))

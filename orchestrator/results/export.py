"""Tidy tables of stores for further analysis: one file, a row for each observation, full precision."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq

from orchestrator.jobs.surrogates import surrogate_of
from orchestrator.results.corruption_rows import corruption_rows
from orchestrator.results.corruptions import CorruptedModel, on_clean_images
from orchestrator.results.epoch_rows import epoch_rows
from orchestrator.results.joined import JoinedIndex
from orchestrator.results.line import ATTACK, STORED
from orchestrator.results.live_stores import Results, opened
from orchestrator.results.test_images import test_images
from orchestrator.results.transfer import clean_line, white_box
from orchestrator.store import tables
from orchestrator.store.alignment import alignment_folder, iter_trainings
from orchestrator.store.store import Store, skipped_in

_ENDS = {"": "value", "_lo": "lo", "_hi": "hi"}
#: Columns of a cell that are repeated for each of its outcomes.
_NAMES = ("task", "dataset", "backbone", "rule", "seed", "attack", "gradient", "epsilon", "epsilon_label")
#: Columns of a model that are repeated for each of its layers.
_MODEL = ("task", "dataset", "backbone", "weights", "finetune", "rule", "rule_params", "seed")
#: What its clean score is found by.
_CLEAN = ("attack", "value")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Exported:
    """What was written, and what was left out."""

    rows: int
    #: Files that could not be used, with the reason.
    skipped: Mapping[str, str]
    #: A sentence for each pair of files of two stores that have different values of one cell.
    problems: Sequence[str]


def export(stores: Sequence[Store], what: str, out: Path) -> Exported:
    """Write "results", "outcomes", "curves", "worst", "transfer", "corruptions", "alignment", "training" or "notes" of
    stores.

    The file's suffix is .csv or .parquet. Of several stores a column `store` names the one that a row is from. As in
    the explorer, a cell that two of them have counts once, and one with two values not at all. Outcomes are written
    file by file, so that they need not fit into memory. Raises ValueError for another suffix.
    """
    if out.suffix not in (".csv", ".parquet"):
        raise ValueError(f"--out {out} must end with .csv or .parquet")
    data = None
    if what in _COMPUTED or len(stores) > 1:
        data = opened([store.uri for store in stores], at_once=True)
        if what != "notes":
            data.check()
    contents = _COMPUTED[what](data) if what in _COMPUTED and data else _of_each(data, stores, what)
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
        names = ", ".join(store.uri for store in stores)
        raise ValueError(f"{names}: nothing of {what} is there that can be read")
    temporary.replace(out)
    skipped = skipped_in(stores) | (data.skipped if data else {})
    return Exported(rows=rows, skipped=skipped, problems=data.snapshot.problems if data else ())


def _of_each(data: Results | None, stores: Sequence[Store], what: str) -> Iterator[pa.Table]:
    """The tables of each store, with its name and without what another one stands for where there are several."""
    trainings: set[str] = set()
    index = data.snapshot.index if data else None
    cells_by_store = index.cells_by_store() if isinstance(index, JoinedIndex) else {"": None}
    for store, (name, cells) in zip(stores, cells_by_store.items(), strict=True):
        models = ["finetune_job", *_MODEL]
        names = {"outcomes": ["cell", *_NAMES], "alignment": models, "training": [*models, *_CLEAN]}.get(
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
    for table in store.iter_tables("outcomes", tables.OUTCOMES):
        joined = table.join(cells, "cell", join_type="inner")
        if len(joined):
            yield joined.select(["cell", *_NAMES, "image", "robust", "ap", "linf", "zero_grad"])


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


def _curves(data: Results) -> Iterator[pa.Table]:
    """A row for each point of each line, over all seeds, with its interval and its paired gap to BP.

    The optimality of a line's attack is repeated at each of its points.
    """
    query = data.snapshot.query()
    curves, rows = query.curves(query.index.ordered), []
    lines = [query.index.lines[curve.line] for curve in curves]
    optimalities = data.snapshot.optimalities(query).of(lines)
    for curve, line, optimality in zip(curves, lines, optimalities, strict=True):
        names = {name: getattr(line, name) for name in STORED} | {"score": curve.score_name, "optimality": optimality}
        for point in curve.points:
            row = names | {"epsilon": point.epsilon, "epsilon_label": point.label, "value": point.score.value}
            row |= {"lo": point.score.lo, "hi": point.score.hi, "method": point.score.method}
            row |= {"images": point.score.n, "seeds": point.score.seeds}
            for name, gap in (("gap_to_bp", point.over_bp), ("over_exact", point.over_exact)):
                row |= {f"{name}{end}": getattr(gap, field, None) for end, field in _ENDS.items()}
            if data.names:
                by_seed = query.rows_by_seed(line, point.epsilon)
                row["store"] = ", ".join(dict.fromkeys(data.store_of(query.index, r) for r in by_seed.values()))
            rows.append(row)
    yield from _typed(rows)


def _worst(data: Results) -> Iterator[pa.Table]:
    """A row for each model, norm and ε: its worst case over all attacks in the store, over all seeds."""
    query, rows = data.snapshot.query(), []
    cases = data.snapshot.worst_cases(query)
    for worst_line in cases.of(line.figure for line in query.index.ordered):
        names = {name: getattr(worst_line.line, name) for name in STORED if name not in ATTACK}
        names |= {"score": worst_line.curve.score_name, "norm": worst_line.curve.norm}
        for worst in (worst_line.points[epsilon] for epsilon in sorted(worst_line.points)):
            point, score = worst.point, worst.point.score
            row = names | {"epsilon": point.epsilon, "epsilon_label": point.label, "value": score.value}
            row |= {"lo": score.lo, "hi": score.hi, "method": score.method, "images": score.n, "seeds": score.seeds}
            for name, gap in (("gap_to_bp", point.over_bp), ("feedback_gap_to_bp", worst.feedback)):
                row |= {f"{name}{end}": getattr(gap, field, None) for end, field in _ENDS.items()}
            row |= {"excludes_zero": worst.clear, "feedback_excludes_zero": worst.feedback_clear}
            row |= {"comparisons": worst_line.family, "strongest": point.runs[0], "runs": ", ".join(point.runs)}
            row["without_counterpart"] = ", ".join(worst.unmatched)
            if data.names:
                rows_of_runs = [r for line in worst.lines for r in query.rows_by_seed(line, point.epsilon).values()]
                row["store"] = ", ".join(dict.fromkeys(data.store_of(query.index, r) for r in rows_of_runs))
            rows.append(row)
    yield from _typed(rows)


def _transfer(data: Results) -> Iterator[pa.Table]:
    """A row for each surrogate, attacked model and ε of the transfer attacks, beside the model's clean score."""
    query, rows = data.snapshot.query(), []
    index = query.index
    curves = {curve.line: curve for curve in query.curves(index.ordered)}
    for line in index.ordered:
        if not line.transfers or line.number not in curves:
            continue
        curve, clean = curves[line.number], clean_line(index, line)
        surrogate = surrogate_of(line.gradient)
        names = {name: getattr(line, name) for name in STORED}
        names |= {"surrogate_rule": surrogate.rule, "surrogate_rule_params": surrogate.parameters}
        names |= {"surrogate_seed": "other" if surrogate.other_seed else "same"}
        names |= {"white_box": white_box(line), "score": curve.score_name, "norm": curve.norm}
        unattacked = None if clean is None or clean.number not in curves else curves[clean.number].points[0].score
        for point in curve.points:
            score, row = point.score, names | {"epsilon": point.epsilon, "epsilon_label": point.label}
            row |= {"value": score.value, "lo": score.lo, "hi": score.hi, "method": score.method}
            row |= {"images": score.n, "seeds": score.seeds}
            row |= {f"clean{end}": getattr(unattacked, field, None) for end, field in _ENDS.items()}
            if data.names:
                by_seed = query.rows_by_seed(line, point.epsilon)
                row["store"] = ", ".join(dict.fromkeys(data.store_of(index, r) for r in by_seed.values()))
            rows.append(row)
    yield from _typed(rows)


def _corruptions(data: Results) -> Iterator[pa.Table]:
    """A row for each model and corrupted set of test images, and for their means, over all seeds."""
    query, rows = data.snapshot.query(), []
    clean = (on_clean_images(line) for line in query.index.ordered if test_images(line.dataset_params).kind)
    for model in data.snapshot.corruptions(query).of(line.figure for line in clean):
        names = {name: getattr(model.line, name) for name in STORED if name not in ATTACK}
        stores = {} if not data.names else {"store": _stores(data, model)}
        for one in corruption_rows(model):
            row = names | {"corruption": one.kind or "mean", "severity": one.severity, "value": one.score.value}
            row |= {"lo": one.score.lo, "hi": one.score.hi, "method": one.score.method}
            row |= {"images": one.score.n, "seeds": one.score.seeds, "excludes_zero": one.clear}
            for name, number in (("gap_to_bp", one.gap), ("ce", one.ce), ("relative_ce", one.relative)):
                row |= {f"{name}{end}": getattr(number, field, None) for end, field in _ENDS.items()}
            rows.append(row | stores)
    yield from _typed(rows)


def _stores(data: Results, model: CorruptedModel) -> str:
    query = data.snapshot.query()
    rows = [row for line in model.lines.values() for row in query.rows_by_seed(line, 0.0).values()]
    return ", ".join(dict.fromkeys(data.store_of(query.index, row) for row in rows))


def _notes(data: Results) -> Iterator[pa.Table]:
    """A row for each note that was not withdrawn."""
    if rows := [dataclasses.asdict(note) | ({"store": store} if store else {}) for store, note in data.notes]:
        yield pa.Table.from_pylist(rows)


#: What is read from stores that are looked at together.
_COMPUTED: Mapping[str, Callable[[Results], Iterator[pa.Table]]] = {
    "curves": _curves,
    "worst": _worst,
    "transfer": _transfer,
    "corruptions": _corruptions,
    "notes": _notes,
}
_GAPS = ("gap_to_bp", "feedback_gap_to_bp", "over_exact", "clean", "ce", "relative_ce")
#: Columns of numbers that may be null in every row.
_MAYBE = {f"{name}{end}" for name in _GAPS for end in _ENDS} | {"optimality"}


def _typed(rows: list[dict[str, Any]]) -> Iterator[pa.Table]:
    """The rows as a table, in which what may be null is a number even where it always is: nulls alone have no type."""
    if rows:
        table = pa.Table.from_pylist(rows)
        types = dict.fromkeys(_MAYBE, pa.float64()) | {"excludes_zero": pa.bool_()}
        fields = [pa.field(f.name, types.get(f.name, f.type)) for f in table.schema]
        yield table.cast(pa.schema(fields))

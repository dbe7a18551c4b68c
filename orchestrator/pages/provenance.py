"""The provenance of a cell: its stored row, and the jobs of every seed of its point."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime

from orchestrator.drawing.blocks import Facts, Table, Value
from orchestrator.pages.columns import STORE, numbers, percents, texts
from orchestrator.pages.context import PageContext
from orchestrator.results.labels import mapping, words

_COLUMNS = (
    *numbers(seed="seed"),
    *percents(value="score"),
    *numbers(n="images"),
    *texts(job="attack job", finetune_job="fine-tune job", git="code", device="device"),
    # A CPU has no TF32: seeds of one point may differ in it.
    *texts(precision="arithmetic", finetune_precision="fine-tuned in", took="took"),
    *texts(finished="finished", cell="cell"),
)
_STORED = ("seed", "value", "n", "job", "finetune_job", "git", "device", "precision", "finetune_precision", "cell")


def provenance(context: PageContext, row: int) -> Facts:
    """The stored row of the cell, in words."""
    index = context.index
    (stored,) = context.data.cells.rows(index, [row])
    planned = context.status.origin(str(index.value("cell", row)))
    facts = [
        (name, words(value))
        for name, (column, words) in _FACTS.items()
        if (value := stored.get(column)) is not None and value != ""
    ]
    grid = (
        "no stored grid that can be read plans it" if planned is None else f"{planned.grid}, {planned.experiment + 1}."
    )
    if store := context.stores([row]):
        facts.append(("store", store))
    seed = int(index.seed[row])
    return Facts(
        title=f"Where it comes from (seed {seed})", facts=[*facts, ("grid, experiment", grid.removesuffix("."))]
    )


def jobs(context: PageContext, rows: Mapping[int, int]) -> Table:
    """The jobs behind each seed's cell, `rows` being the rows by seed."""
    table_rows: list[Mapping[str, Value]] = []
    numbers = [rows[seed] for seed in sorted(rows)]
    for number, row in zip(numbers, context.data.cells.rows(context.index, numbers), strict=True):
        if row:
            stored = {name: row[name] for name in _STORED} | {"store": context.stores([number])}
            table_rows.append(stored | {"took": _seconds(row["seconds"]), "finished": _time(row["finished_at"])})
    columns = (*_COLUMNS, STORE) if context.data.names else _COLUMNS
    return Table(name="cell-seeds", title="The jobs of every seed of this point", columns=columns, rows=table_rows)


def settings(text: object) -> str:
    """JSON as people read it: "epochs=3, lr=0.01"."""
    values = mapping(str(text))
    if set(values) == {"params"}:
        return "none" if values["params"] is None else _plain(values["params"])
    return ", ".join(f"{name}={_plain(value)}" for name, value in values.items()) or "defaults"


def _plain(value: object) -> str:
    if isinstance(value, dict):
        return words(value)
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _versions(text: object) -> str:
    versions = mapping(str(text))
    if set(versions) == {"params"}:
        return settings(text)
    first = [name for name in ("python", "torch") if name in versions]
    names = [*first, *(name for name in versions if name not in first)]
    return ", ".join(f"{name} {_plain(versions[name])}" for name in names) or "not recorded"


def _seconds(value: object) -> str:
    return f"{value:,.2f} s" if isinstance(value, float) else ""


def _time(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else ""


def _yes_or_no(value: object) -> str:
    return "yes" if value else "no"


def _number(value: object) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value:,}" if isinstance(value, int) else str(value)


#: For each fact its column, and how its value is written.
_FACTS: dict[str, tuple[str, Callable[[object], str]]] = {
    "cell": ("cell", str),
    "attack job": ("job", str),
    "fine-tune job": ("finetune_job", str),
    "images made on": ("surrogate_job", str),
    "code": ("git", str),
    "versions": ("versions", _versions),
    "device": ("device", str),
    "arithmetic": ("precision", str),
    "deterministic": ("deterministic", _yes_or_no),
    "fine-tuned on": ("finetune_device", str),
    "fine-tuned in": ("finetune_precision", str),
    "fine-tune: deterministic": ("finetune_deterministic", _yes_or_no),
    "the attack job took": ("seconds", _seconds),
    "finished": ("finished_at", _time),
    "gradient steps": ("steps", _number),
    "step size": ("step_size", _number),
    "fine-tune settings": ("finetune", settings),
    "epoch of the fine-tune": ("finetune_epoch", _number),
    "weights": ("weights", settings),
}

"""Where a cell comes from: its row in words, and the jobs of every seed of its point."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime

from orchestrator.drawing.blocks import Column, Facts, Table, Value
from orchestrator.pages.context import Context
from orchestrator.results.labels import mapping

_COLUMNS = (
    Column(key="seed", label="seed", kind="number"),
    Column(key="value", label="score", kind="percent"),
    Column(key="n", label="images", kind="number"),
    Column(key="job", label="attack job"),
    Column(key="finetune_job", label="fine-tune job"),
    Column(key="git", label="code"),
    Column(key="device", label="device"),
    Column(key="took", label="took"),
    Column(key="finished", label="finished"),
    Column(key="cell", label="cell"),
)
_STORED = ("seed", "value", "n", "job", "finetune_job", "git", "device", "cell")


def provenance(context: Context, row: int) -> Facts:
    """The one cell's row in words."""
    index = context.snapshot.index
    (stored,) = context.data.rows(index, [row])
    asked = context.status.origin(str(index.value("cell", row)))
    facts = [
        (name, words(value))
        for name, (column, words) in _FACTS.items()
        if (value := stored.get(column)) is not None and value != ""
    ]
    grid = "no stored grid that can be read asks for it" if asked is None else f"{asked.grid}, {asked.experiment + 1}."
    seed = int(index.seed[row])
    return Facts(
        title=f"Where it comes from (seed {seed})", facts=[*facts, ("grid, experiment", grid.removesuffix("."))]
    )


def jobs(context: Context, rows: Mapping[int, int]) -> Table:
    """The jobs behind each seed's cell, `rows` being the rows by seed."""
    found: list[Mapping[str, Value]] = []
    for whole in context.data.rows(context.snapshot.index, [rows[seed] for seed in sorted(rows)]):
        if whole:
            stored = {name: whole[name] for name in _STORED}
            found.append(stored | {"took": _seconds(whole["seconds"]), "finished": _time(whole["finished_at"])})
    return Table(name="cell-seeds", title="The jobs of every seed of this point", columns=_COLUMNS, rows=found)


def settings(text: object) -> str:
    """JSON as people read it: "epochs=3, lr=0.01"."""
    found = mapping(str(text))
    if set(found) == {"params"}:
        return "none" if found["params"] is None else _plain(found["params"])
    return ", ".join(f"{name}={_plain(value)}" for name, value in found.items()) or "defaults"


def _plain(value: object) -> str:
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _versions(text: object) -> str:
    found = mapping(str(text))
    if set(found) == {"params"}:
        return settings(text)
    first = [name for name in ("python", "torch") if name in found]
    names = [*first, *(name for name in found if name not in first)]
    return ", ".join(f"{name} {_plain(found[name])}" for name in names) or "not recorded"


def _seconds(value: object) -> str:
    return f"{value:,.2f} s" if isinstance(value, float) else ""


def _time(value: object) -> str:
    return f"{value:%Y-%m-%d %H:%M:%S} UTC" if isinstance(value, datetime) else ""


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
    "the attack job took": ("seconds", _seconds),
    "finished": ("finished_at", _time),
    "gradient steps": ("steps", _number),
    "step size": ("step_size", _number),
    "fine-tune settings": ("finetune", settings),
    "weights": ("weights", settings),
}

"""The report: the explorer's pages as a folder of files that opens from disk and asks no other host for anything."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from plotly.offline import get_plotlyjs

from orchestrator.explorer import pages
from orchestrator.explorer.blocks import Block, Facts, Figure, Matrix, Page, Table, Words
from orchestrator.explorer.data import Data
from orchestrator.explorer.pages.context import Context, context_of
from orchestrator.explorer.presets import PRESETS
from orchestrator.explorer.screen import Screen
from orchestrator.explorer.sheets import Sheets
from orchestrator.explorer.verdicts import halving, verdicts
from orchestrator.explorer.view import PAGES, View, format_view
from orchestrator.explorer.writing import write

#: Pages that are written for each task.
_STATIC = ("curves", "gap", "tables", "flags")
#: Parts of a page, and cells with a page of their own; the explorer has all.
MOST_PARTS, MOST_CELLS = 20, 48


def write_report(
    data: Data, out: Path, *, title: str, missing: int = 0, command: str = "", screen: Screen | None = None
) -> Path:
    """Write the pages of every task, their figures and tables, and provenance.json; the path of index.html.

    `missing` is the number of cells that grids ask for and that have no result. `screen` also saves each figure as it
    looks on screen.
    """
    index = data.snapshot.index
    # A name that is no plain word was not made by a sweep, and must not become a path.
    tasks = [task for task in index.choices("task") if task.isidentifier()] if len(index) else []
    menu = [("Overview", "index.html")]
    menu += [
        (f"{PAGES[p]}: {task}", f"{p}-{task}.html") for task in tasks for p in ("curves", "gap", "tables", "flags")
    ]
    cells = {task: _cells(context_of(data, format_view(View(task=task)))) for task in tasks}
    sheets = Sheets(data, out, title, menu, {cell for found in cells.values() for cell in found}, screen)
    write(out / "plotly.min.js", get_plotlyjs())
    write(out / "explorer.css", Path(__file__).with_name("assets").joinpath("explorer.css").read_text(encoding="utf-8"))
    for task in tasks:
        for name in _STATIC:
            view = View(page=name, task=task)
            sheets.add(_page(data, view), f"{name}-{task}", format_view(view))
        for cell in cells[task]:
            search = format_view(View(page="cell", task=task, cell=cell))
            sheets.add(pages.build(context_of(data, search)), f"cells/{cell[:16]}", search)
    provenance = _provenance(data) | {"command": command, "store": data.store.uri}
    write(out / "provenance.json", json.dumps(provenance, indent=1))
    return sheets.add(_overview(data, tasks, missing, provenance), "index")


def _page(data: Data, view: View) -> Page:
    """A page with all its variants, one below the other."""
    blocks: list[Block] = []
    said: set[object] = set()
    for at, variant in enumerate(_variants(data, view)):
        for block in pages.build(context_of(data, format_view(variant))).blocks:
            if isinstance(block, Words):
                if (block.title, *block.sentences) in said:
                    continue
                said.add((block.title, *block.sentences))
            blocks.append(_renamed(block, at) if at else block)
    plain = [block for block in blocks if not (isinstance(block, Words) and block.title == "How to read")]
    reading = [block for block in blocks if isinstance(block, Words) and block.title == "How to read"]
    return Page(title=f"{PAGES[view.page]}: {view.task}", blocks=[*plain, *reading])


def _variants(data: Data, view: View) -> Iterator[View]:
    if view.page == "tables":
        for name, preset in PRESETS.items():
            if preset.task in ("", view.task):
                yield dataclasses.replace(view, preset=name)
    elif view.page == "gap":
        yield view
        yield dataclasses.replace(view, form="heat")
        yield dataclasses.replace(view, minus="exact")
    else:
        parts = pages.parts(context_of(data, format_view(view)))
        for part in range(1, min(parts, MOST_PARTS) + 1):
            yield dataclasses.replace(view, part=part)


def _renamed(block: Block, at: int) -> Block:
    """A block of a later variant, whose files must not take the place of the first one's."""
    if isinstance(block, (Figure, Matrix)):
        table = dataclasses.replace(block.table, name=f"{block.table.name}-{at + 1}")
        return dataclasses.replace(block, name=f"{block.name}-{at + 1}", table=table)
    return dataclasses.replace(block, name=f"{block.name}-{at + 1}") if isinstance(block, Table) else block


def _cells(context: Context) -> list[str]:
    """For each line under attack the cell at the epsilon where the attack is strong and not everything is lost."""
    lines = context.lines()[:MOST_CELLS]
    if not lines:
        return []
    epsilon = halving(context.query, lines)
    found = [point.cell for curve in context.query.curves(lines) if (point := curve.at(epsilon)) is not None]
    return list(dict.fromkeys(found))


def _overview(data: Data, tasks: list[str], missing: int, provenance: dict[str, Any]) -> Page:
    if not tasks:
        return pages.build(context_of(data, ""))
    blocks: list[Block] = []
    context = context_of(data, "")
    if context.problems:
        blocks.append(Words(title="To be known", sentences=context.problems, tone="warning"))
    if missing:
        words = f"{missing:,} cells of the stored grids have no result: they are not run, running or failed, and not "
        words += "shown as zeros. The tables say which; `signsym status` says why."
        blocks.append(Words(title="Not everything is here", sentences=[words], tone="warning"))
    for task in tasks:
        blocks.extend(_said(context_of(data, format_view(View(task=task)))))
    facts = [(name, ", ".join(value) if isinstance(value, list) else str(value)) for name, value in provenance.items()]
    return Page(title="Overview", blocks=[*blocks, Facts(title="Provenance", facts=facts)])


def _said(context: Context) -> list[Block]:
    """What the numbers of a task say about the last attack that has both gradients, or else the last one."""
    lines = context.lines()
    both = [line.attack for line in lines if line.gradient == "exact"] or [line.attack for line in lines]
    chosen = [line for line in lines if line.attack == both[-1]][:60] if both else []
    if not chosen:
        return []
    epsilon = halving(context.query, chosen)
    label = next((text for text, value in context.epsilons().items() if value == epsilon), f"{epsilon:g}")
    found = verdicts(context.query, chosen, epsilon, label)
    title = f"What the numbers say, {context.view.task} at ε = {label}"
    small = any(curve.small for curve in context.query.curves(chosen))
    caution = ["Some of these rest on fewer than 1,000 images or 3 seeds: a demonstration, not evidence."]
    return [Words(title=title, sentences=[*found, *(caution if small else [])], tone="finding")] if found else []


def _provenance(data: Data) -> dict[str, Any]:
    columns = data.whole("finetune_job", "job", "git", "versions", "device")

    def distinct(column: str) -> list[str]:
        return sorted(str(value) for value in pc.unique(columns[column]).to_pylist() if value is not None)

    return {
        "cells": len(data.snapshot.index),
        "fine_tunes": len(distinct("finetune_job")),
        "attack_jobs": len(distinct("job")),
        "git": distinct("git"),
        "versions": distinct("versions"),
        "devices": distinct("device"),
        "last_result": data.snapshot.index.last_write,
    }

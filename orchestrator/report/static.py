"""The report: the explorer's pages as a folder of files that opens from disk and asks no other host for anything."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.compute as pc
from plotly.offline import get_plotlyjs

from orchestrator.pages import overview
from orchestrator import pages
from orchestrator.explorer import ASSETS
from orchestrator.drawing.blocks import Block, Facts, Figure, Links, Matrix, Page, Table, Words
from orchestrator.results.data import Data
from orchestrator.pages import gap
from orchestrator.pages.context import Context, context_of
from orchestrator.pages.paper_tables import PRESETS
from orchestrator.drawing.screen import Screen
from orchestrator.report.files import Sheets
from orchestrator.pages.sentences import at_epsilon, finding
from orchestrator.results.view import PAGES, View, format_view
from orchestrator.drawing.writing import write

#: Pages that are written for each task.
_STATIC = ("curves", "gap", "tables", "flags")
_READING = "How to read"
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
    write(out / "explorer.css", (ASSETS / "explorer.css").read_text(encoding="utf-8"))
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
    reading: dict[str, None] = {}
    said: set[object] = set()
    parts = _count(data, view)
    if parts > MOST_PARTS:
        words = f"The first {MOST_PARTS} of {parts} parts are here; `signsym explore` has all."
        blocks.append(Words(title="Not everything is here", sentences=[words], tone="warning"))
    for at, variant in enumerate(_variants(data, view)):
        for block in pages.build(context_of(data, format_view(variant))).blocks:
            if isinstance(block, Words):
                told = (block.title, *block.sentences)
                if block.title == _READING:
                    reading |= dict.fromkeys(block.sentences)
                elif told not in said and not _again(block, variant):
                    said.add(told)
                    blocks.append(block)
            # The parts that those lead to are below.
            elif not isinstance(block, Links):
                blocks.append(_renamed(block, at, variant))
    if reading:
        blocks.append(Words(title=_READING, sentences=list(reading)))
    return Page(title=f"{PAGES[view.page]}: {view.task}", blocks=blocks)


def _variants(data: Data, view: View) -> Iterator[View]:
    if view.page == "tables":
        for name, preset in PRESETS.items():
            if preset.task in ("", view.task):
                yield dataclasses.replace(view, preset=name)
    elif view.page == "gap":
        yield from _parts(data, view)
        yield dataclasses.replace(view, form="heat")
        yield from _parts(data, dataclasses.replace(view, minus="exact"))
    else:
        yield from _parts(data, view)


def _parts(data: Data, view: View) -> Iterator[View]:
    for part in range(1, min(_count(data, view), MOST_PARTS) + 1):
        yield dataclasses.replace(view, part=part)


def _count(data: Data, view: View) -> int:
    """How many parts a page has in the explorer."""
    context = context_of(data, format_view(view))
    return {"tables": lambda _: 1, "gap": gap.parts}.get(view.page, pages.parts)(context)


def _again(block: Words, variant: View) -> bool:
    """Whether a variant says in other words what stands above: the answers that its parts have given."""
    return block.tone == "finding" and (variant.form == "heat" or variant.minus == "exact")


def _renamed(block: Block, at: int, variant: View) -> Block:
    """A block of a variant, whose files must not take the place of the first one's and name the variant's address."""
    more: dict[str, Any] = {}
    if isinstance(block, Figure) and block.drawing is not None:
        more["drawing"] = dataclasses.replace(block.drawing, view=format_view(variant))
    if isinstance(block, Figure) and variant.part > 1:
        more["title"] = f"{block.title}, part {variant.part}"
    if at and isinstance(block, (Figure, Matrix)):
        table = dataclasses.replace(block.table, name=f"{block.table.name}-{at + 1}")
        more |= {"name": f"{block.name}-{at + 1}", "table": table}
    if at and isinstance(block, Table):
        more["name"] = f"{block.name}-{at + 1}"
    return dataclasses.replace(block, **more)


def _cells(context: Context) -> list[str]:
    """For each line under attack the cell at the epsilon that the gap page is about."""
    lines = context.lines()
    epsilon, _, _ = at_epsilon(context.query, lines, "")
    found = [
        point.cell for curve in context.query.curves(lines[:MOST_CELLS]) if (point := curve.at(epsilon)) is not None
    ]
    # What is no plain word must not become a path.
    return [cell for cell in dict.fromkeys(found) if re.fullmatch(r"[\w.-]+", cell)]


def _overview(data: Data, tasks: list[str], missing: int, provenance: dict[str, Any]) -> Page:
    if not tasks:
        return pages.build(context_of(data, ""))
    blocks: list[Block] = []
    for task in tasks:
        blocks.extend(overview.blocks(context_of(data, format_view(View(task=task)))))
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


def _said(context: Context) -> list[Words]:
    """What the gap page says of a task, about the last attack that has both gradients, or else the last one."""
    lines, index = context.lines(), context.snapshot.index
    epsilon, label, _ = at_epsilon(context.query, lines, "")
    there = set(index.line_numbers(np.flatnonzero(index.epsilon == epsilon)).tolist())
    lines = [line for line in lines if line.number in there]
    attacks = [line.attack for line in lines if line.gradient == "exact"] or [line.attack for line in lines]
    chosen = [line for line in lines if line.attack == attacks[-1]]
    title = f"What the numbers say, {context.view.task} at ε = {label}"
    return finding(context.query, chosen, epsilon, label, title, rest="the Gap page has the others")


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

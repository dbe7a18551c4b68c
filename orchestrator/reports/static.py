"""The report: the explorer's pages as a folder of files that opens from disk and contacts no other host."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow.compute as pc
from plotly.offline import get_plotlyjs

from orchestrator import pages
from orchestrator.drawing.blocks import Block, Facts, Figure, Links, Matrix, Page, Table, Words
from orchestrator.drawing.screen import Screen
from orchestrator.explorer import ASSETS
from orchestrator.pages import answers, notes, overview
from orchestrator.pages.alignment import ANGLES
from orchestrator.pages.context import PageContext, context_of
from orchestrator.pages.geometry import NAME as GEOMETRY
from orchestrator.pages.paper_tables import PRESETS
from orchestrator.pages.telling_epsilon import at_epsilon
from orchestrator.pages.transfer import NAME as TRANSFER
from orchestrator.reports.page_files import PageWriter
from orchestrator.results.live_stores import Results
from orchestrator.results.view import PAGES, PageView, format_view
from orchestrator.store.files import write_file
from orchestrator.store.progress import Progress, silent

#: Pages that are written for each task.
_STATIC = ("curves", "gap", "tables", "flags", "training")
#: What the gap page shows beside the gaps, whatever way it shows these.
_SAME = (TRANSFER, GEOMETRY, ANGLES)
_READING = "How to read"
#: Portions of a page, and cells that have a page, at most; the explorer has all.
MOST_PARTS, MOST_CELLS = 20, 48


def write_report(
    data: Results,
    out: Path,
    *,
    title: str,
    missing: int = 0,
    command: str = "",
    screen: Screen | None = None,
    progress: Progress = silent,
) -> Path:
    """Write the pages of every task, their figures and tables, and provenance.json; the path of index.html.

    `missing` is the number of planned cells that have no result. `screen` also saves each figure as it
    looks on screen. `progress` is told the pages that are written.
    """
    index = data.snapshot.index
    # A name that is no identifier does not come from a sweep and must not become a path.
    tasks = [task for task in index.choices("task") if task.isidentifier()] if len(index) else []
    titles = _titles(tasks)
    menu = [("Overview", "index.html"), *((title, f"{name}-{task}.html") for (task, name), title in titles.items())]
    cells = {task: _cells(context_of(data, format_view(PageView(task=task)))) for task in tasks}
    writer = PageWriter(data, out, title, menu, {cell for task_cells in cells.values() for cell in task_cells}, screen)
    write_file(out / "plotly.min.js", get_plotlyjs().encode())
    write_file(out / "explorer.css", (ASSETS / "explorer.css").read_bytes())
    # Told apart, since a page of all results takes as long as twenty of a cell.
    written = cells_written = 0
    for task in tasks:
        for name in _STATIC:
            view = PageView(page=name, task=task)
            writer.add(_page(data, view, titles[task, name]), f"{name}-{task}", format_view(view))
            progress("pages of results written", written := written + 1, len(titles))
        for cell in cells[task]:
            search = format_view(PageView(page="cell", task=task, cell=cell))
            writer.add(pages.build(context_of(data, search)), f"cells/{cell[:16]}", search)
            progress("pages of cells written", cells_written := cells_written + 1, sum(map(len, cells.values())))
    provenance = _provenance(data) | {"command": command, "store": data.uri}
    write_file(out / "provenance.json", json.dumps(provenance, indent=1).encode())
    return writer.add(_overview(data, tasks, missing, provenance), "index")


def _titles(tasks: Sequence[str]) -> dict[tuple[str, str], str]:
    """The title of each task's each page, which names the task where there are several."""
    several = len(tasks) > 1
    return {(task, name): f"{PAGES[name]}: {task}" if several else PAGES[name] for task in tasks for name in _STATIC}


def _page(data: Results, view: PageView, title: str) -> Page:
    """A page with all its variants, one below the other."""
    blocks: list[Block] = []
    reading: dict[str, None] = {}
    said: set[object] = set()
    portions = pages.portions(context_of(data, format_view(view)))
    if portions > MOST_PARTS:
        words = f"The first {MOST_PARTS} of {portions} parts are here; `signsym explore` has all."
        blocks.append(Words(title="Not everything is here", sentences=[words], tone="warning"))
    for number, variant in enumerate(_variants(data, view)):
        for block in pages.build(context_of(data, format_view(variant))).blocks:
            if isinstance(block, Words):
                content = (block.title, *block.sentences)
                if block.title == _READING:
                    reading |= dict.fromkeys(block.sentences)
                elif block.tone == "warning":
                    # Portions and variants have most of their problems in common.
                    fresh = [words for words in block.sentences if f"{block.title}: {words}" not in said]
                    said |= {f"{block.title}: {words}" for words in fresh}
                    blocks += [dataclasses.replace(block, sentences=fresh)] if fresh else []
                elif content not in said and not (block.tone == "finding" and _varies(variant)):
                    said.add(content)
                    blocks.append(block)
            elif isinstance(block, Matrix) and block.name == "answers":
                rows = str(block.rows)
                if rows not in said and not _varies(variant):
                    said.add(rows)
                    blocks.append(_renamed(block, number, variant))
            elif _varies(variant) and isinstance(block, (Figure, Matrix)) and block.name.startswith(_SAME):
                continue
            # Links to other portions are left out: these are below.
            elif not isinstance(block, Links):
                blocks.append(_renamed(block, number, variant))
    if reading:
        blocks.append(Words(title=_READING, sentences=list(reading)))
    return Page(title=title, blocks=blocks)


def _variants(data: Results, view: PageView) -> Iterator[PageView]:
    if view.page == "tables":
        for name, preset in PRESETS.items():
            # A page that only says that nothing was run helps nobody.
            if preset.task in ("", view.task) and (
                name != "corruptions" or context_of(data, format_view(view)).corrupted()
            ):
                yield dataclasses.replace(view, preset=name)
    elif view.page == "gap":
        yield from _portions(data, view)
        yield dataclasses.replace(view, form="heat")
        yield from _portions(data, dataclasses.replace(view, minus="exact"))
    elif view.page == "training":
        yield from _portions(data, view)
        yield from _portions(data, dataclasses.replace(view, layers="each"))
    else:
        yield from _portions(data, view)
        if view.page == "curves":
            yield from _portions(data, dataclasses.replace(view, over="worst"))


def _portions(data: Results, view: PageView) -> Iterator[PageView]:
    portions = pages.portions(context_of(data, format_view(view)))
    for portion in range(1, min(portions, MOST_PARTS) + 1):
        yield dataclasses.replace(view, portion=portion)


def _varies(variant: PageView) -> bool:
    """Whether a variant shows the gaps of the portions above in another way, with the same answers."""
    return variant.form == "heat" or variant.minus == "exact"


def _renamed(block: Block, number: int, variant: PageView) -> Block:
    """A block of a variant under another name, so that its files do not replace those of the first variant."""
    more: dict[str, Any] = {}
    if isinstance(block, Figure) and block.drawing is not None:
        more["drawing"] = dataclasses.replace(block.drawing, view=format_view(variant))
    if isinstance(block, Figure) and variant.portion > 1:
        more["title"] = f"{block.title}, part {variant.portion}"
    if number and isinstance(block, (Figure, Matrix)):
        table = dataclasses.replace(block.table, name=f"{block.table.name}-{number + 1}")
        more |= {"name": f"{block.name}-{number + 1}", "table": table}
    if number and isinstance(block, Table):
        more["name"] = f"{block.name}-{number + 1}"
    return dataclasses.replace(block, **more)


def _cells(context: PageContext) -> list[str]:
    """For each line under attack the cell at the epsilon that the gap page is about."""
    lines = context.lines()
    epsilon, _, _ = at_epsilon(context.query, lines, "")
    cells = [
        point.cell for curve in context.query.curves(lines[:MOST_CELLS]) if (point := curve.point(epsilon)) is not None
    ]
    # And those that somebody has noted something on.
    index, task = context.snapshot.index, context.view.task
    noted = [index.row_of(note.target) for _, note in context.data.notes if note.on == "cell"]
    cells += [str(index.value("cell", row)) for row in noted if row is not None and index.line_of(row).task == task]
    # A key with other characters must not become a path.
    return [cell for cell in dict.fromkeys(cells) if re.fullmatch(r"[\w.-]+", cell)]


def _overview(data: Results, tasks: list[str], missing: int, provenance: dict[str, Any]) -> Page:
    if not tasks:
        return pages.build(context_of(data, ""))
    blocks: list[Block] = []
    for task in tasks:
        blocks.extend(overview.blocks(context_of(data, format_view(PageView(task=task)))))
    context = context_of(data, "")
    blocks += notes.blocks(context)
    if context.problems:
        blocks.append(Words(title="Problems", sentences=context.problems, tone="warning"))
    if missing:
        words = f"{missing:,} cells of the stored grids have no result: they are not run, running or failed, and not "
        words += "shown as zeros. The tables say which; `signsym status` says why."
        blocks.append(Words(title="Not everything is here", sentences=[words], tone="warning"))
    for task in tasks:
        blocks.extend(_said(context_of(data, format_view(PageView(task=task)))))
    shown = provenance | {"versions": map(_versions, provenance["versions"])}
    facts = [(name.replace("_", " "), _words(value)) for name, value in shown.items()]
    return Page(title="Overview", blocks=[*blocks, Facts(title="Provenance", facts=facts)])


def _words(value: Any) -> str:
    return str(value) if isinstance(value, str | int) else "; ".join(value)


def _versions(written: str) -> str:
    """Versions as a row of results has them, such as "torch 2.11.0, numpy 2.4.6"."""
    return ", ".join(f"{name} {version}" for name, version in json.loads(written).items())


def _said(context: PageContext) -> list[Block]:
    """The answers of the gap page for a task."""
    lines = context.lines()
    epsilon, label, _ = at_epsilon(context.query, lines, "")
    title = f"What the numbers say, {context.view.task} at ε = {label}"
    return answers.blocks(context, lines, epsilon, label, title)


def _provenance(data: Results) -> dict[str, Any]:
    columns = data.all_results("finetune_job", "job", "git", "versions", "device")

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

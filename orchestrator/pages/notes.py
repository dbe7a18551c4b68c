"""Notes of people on cells, models and views: beside what they are on, and all of them on a page."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.drawing.blocks import Block, Column, Link, Links, Matrix, MatrixCell, Page, Table, Value, Words
from orchestrator.drawing.style import label
from orchestrator.pages.context import PageContext, settled
from orchestrator.results.index import Index
from orchestrator.results.live_stores import opened
from orchestrator.results.view import PAGES, PageView, format_view, parse_view
from orchestrator.store.notes import Note, On

_COLUMNS = (
    Column(key="at", label="written (UTC)"),
    Column(key="tag", label="tag"),
    Column(key="text", label="note"),
    Column(key="on", label="on"),
    Column(key="target", label="key or address"),
    Column(key="id", label="id"),
    Column(key="store", label="store"),
)
#: Pages that show models as rows or curves, and so the notes on these.
_OF_MODELS = ("flags", "training")


def target_of(storage: str, on: str) -> tuple[On, str]:
    """What a note is on, by its address as the browser shows it or the key, or its beginning, of a cell or a model.

    Raises ValueError where the store does not have it, and for an address with a part that is not understood.
    """
    data = opened([storage], at_once=True)
    index = data.snapshot.index
    if "?" not in on and "=" not in on and on:
        if (row := index.row_of(on)) is not None:
            return "cell", str(index.value("cell", row))
        if rows := index.rows_of_model(on):
            return "model", str(index.value("finetune_job", rows[0]))
        raise ValueError(
            f"--on: {data.uri} has no cell and no fine-tune whose key begins with {on[:70]!r}; expected 8 or more "
            "characters of one, as the page of a cell shows them, or the address of a page"
        )
    view, problems = parse_view(on.partition("?")[2] if "?" in on else on)
    view, _, unknown = settled(view, data)
    if problems + unknown:
        raise ValueError(" ".join(["--on:", *problems, *unknown]))
    if view.page == "cell" and view.cell:
        if (row := index.row_of(view.cell)) is None:
            raise ValueError(f"--on: {data.uri} has no cell {view.cell[:70]!r}")
        return "cell", str(index.value("cell", row))
    return "view", format_view(_kept(view))


def address_of(note: Note) -> str:
    """The address of what a note is on; "" for a model."""
    return {
        "cell": format_view(PageView(page="cell", cell=note.target)),
        "view": note.target,
    }.get(note.on, "")


def noted(page: Page, context: PageContext) -> Page:
    """The page with the notes on what it shows, at its beginning."""
    shown = [(store, note) for store, note in context.data.notes if _concerns(note, store, context)]
    if not shown or context.view.page == "notes":
        return page
    return dataclasses.replace(
        page, blocks=[Words(title="Notes", sentences=[_said(context, *n) for n in shown]), *page.blocks]
    )


def noting(page: Page, context: PageContext) -> Page:
    """The page with the command that writes a note on it, at its end: the explorer itself writes nothing."""
    view = context.view
    if view.page == "notes":
        return page
    index = context.snapshot.index
    row = index.row_of(view.cell) if view.page == "cell" and len(index) else None
    targets = [format_view(_kept(view))]
    if row is not None:
        targets = [str(index.value(name, row)) for name in ("cell", "finetune_job")]
    # Of several stores the one that the cell is from, or the first that is chosen.
    name = context.stores([row]) if row is not None else next(iter(view.store), "")
    storage = dict(zip(context.data.names, context.data.uris, strict=True))[name] if name else context.data.uris[0]
    what = "this view" if row is None else "this cell, and on its model"
    words = Words(
        title="Write a note",
        sentences=[f"On {what}, in a terminal; add --tag WORD to find it by. Pages that are opened later show it."],
        commands=[f"signsym note {shlex.quote(storage)} 'TEXT' --on {shlex.quote(target)}" for target in targets],
    )
    return dataclasses.replace(page, blocks=[*page.blocks, words])


def page(context: PageContext) -> Page:
    """All notes, or those with the tag that the view names."""
    every = [(s, n) for s, n in context.data.notes if not context.view.store or s in context.view.store]
    tags = list(dict.fromkeys(note.tag for _, note in every if note.tag))
    chosen = context.view.tag
    shown = [(store, note) for store, note in every if chosen in ("", note.tag)]
    blocks: list[Block] = []
    if tags:
        links = [Link(text="all" + " (shown)" * (not chosen), search=_with(context, ""))]
        links += [Link(text=tag + " (shown)" * (tag == chosen), search=_with(context, tag)) for tag in sorted(tags)]
        blocks.append(Links(title="Tag", links=links))
    if shown:
        blocks.append(_matrix(context, shown))
    else:
        sentence = f"No note has the tag “{chosen[:60]}”." if chosen else "Nobody has written a note on this store."
        blocks.append(
            Words(
                title="No note",
                sentences=[f"{sentence} The end of each page has the command that writes one on it."],
                tone="todo",
            )
        )
    return context.finished("Notes", blocks)


def blocks(context: PageContext) -> list[Block]:
    """The table of all notes; none where there is no note."""
    return [_matrix(context, list(context.data.notes))] if context.data.notes else []


def _rows(notes: Sequence[tuple[str, Note]]) -> list[Mapping[str, Value]]:
    """A row for each note, with the name of its store."""
    return [dataclasses.asdict(note) | {"store": store} for store, note in notes]


def _matrix(context: PageContext, notes: Sequence[tuple[str, Note]]) -> Matrix:
    several = bool(context.data.names)
    rows = []
    for store, note in reversed(notes):
        where = MatrixCell(lines=_where(context.snapshot.index, note), search=_link(context, note))
        cells = [MatrixCell(lines=[note.text]), where, *(MatrixCell(lines=[text]) for text in (note.day, note.id))]
        cells += [MatrixCell(lines=[store])] if several else []
        rows.append(((note.tag or "–",), cells))
    columns = _COLUMNS if several else _COLUMNS[:-1]
    return Matrix(
        name="notes",
        title="Notes",
        header=["tag", "note", "on", "written", "id", *(["store"] if several else [])],
        rows=rows,
        note="The newest first. They change no number. Withdraw one with: signsym note STORAGE --withdraw ID",
        table=Table(name="notes-rows", title="The notes as a table", columns=columns, rows=_rows(notes)),
    )


def _where(index: Index, note: Note) -> list[str]:
    """What a note is on, in words."""
    row = _row(index, note)
    if note.on == "view":
        view = parse_view(note.target)[0]
        return [f"view: {PAGES[view.page]}", note.target]
    if row is None:
        return [note.on, f"{note.target[:16]}, of which there is no result"]
    line = index.line_of(row)
    names = [label(index.labels.of(line, "rule")), index.labels.title(line), f"seed {index.seed[row]}"]
    if note.on == "cell":
        names.insert(1, f"{index.labels.of(line, 'attack')}, ε = {index.value('epsilon_label', row)}")
    return [f"{note.on}: {', '.join(names)}"]


def _link(context: PageContext, note: Note) -> str:
    """The address of what a note is on; of a model that of one of its cells."""
    row = _row(context.snapshot.index, note)
    if note.on == "view":
        return note.target
    return "" if row is None else format_view(
        PageView(page="cell", task=context.snapshot.index.line_of(row).task,
                 cell=str(context.snapshot.index.value("cell", row)))
    )  # fmt: skip


def _row(index: Index, note: Note) -> int | None:
    """A row of the cell, or the first of the model, of a note."""
    if note.on == "view" or not len(index):
        return None
    return index.row_of(note.target) if note.on == "cell" else next(iter(index.rows_of_model(note.target)), None)


def _concerns(note: Note, store: str, context: PageContext) -> bool:
    """Whether a page shows what a note is on."""
    view, index = context.view, context.snapshot.index
    if view.store and store not in view.store:
        return False
    if note.on == "view":
        return parse_view(note.target)[0] == _kept(view)
    if not len(index):
        return False
    if view.page == "cell" and (row := index.row_of(view.cell)) is not None:
        return note.target == str(index.value("cell" if note.on == "cell" else "finetune_job", row))
    if note.on == "model" and view.page in _OF_MODELS:
        # One fine-tune may be attacked on several data sets.
        rows = np.array(index.rows_of_model(note.target), dtype=np.int64)
        models = {index.lines[number].model for number in set(index.line_numbers(rows).tolist())}
        return not models.isdisjoint(line.model for line in context.lines())
    return False


def _kept(view: PageView) -> PageView:
    """What of a view a note is on: not which stores are beside it, and how much of it is unfolded."""
    return dataclasses.replace(view, store=(), live=False, table=False, portion=1, tag="")


def _said(context: PageContext, store: str, note: Note) -> str:
    tag = f"[{note.tag}] " if note.tag else ""
    model = f"on the {_where(context.snapshot.index, note)[0]}" if note.on == "model" else ""
    return f"{tag}{note.text} ({', '.join(filter(None, (note.day, store, model, note.id)))})"


def _with(context: PageContext, tag: str) -> str:
    return format_view(dataclasses.replace(context.view, tag=tag))

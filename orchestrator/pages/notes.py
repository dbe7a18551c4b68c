"""Notes of people on cells, models and views: beside what they are on, and all of them on a page."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence

import numpy as np

from orchestrator.drawing.blocks import Block, Link, Links, Matrix, MatrixCell, Page, Table, Value, Words
from orchestrator.pages.columns import texts
from orchestrator.pages.context import PageContext
from orchestrator.pages.note_targets import kept, link_of, words_of
from orchestrator.results.view import format_view, parse_view
from orchestrator.store.notes import Note

_COLUMNS = texts(at="written (UTC)", tag="tag", text="note", on="on", target="key or address", id="id", store="store")
#: Pages that show models as rows or curves, and so the notes on these.
_OF_MODELS = ("flags", "training")


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
    index = context.index
    row = index.row_of(view.cell) if view.page == "cell" and len(index) else None
    targets = [format_view(kept(view))]
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
        where = MatrixCell(lines=words_of(context.index, note), search=link_of(context.index, note))
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


def _concerns(note: Note, store: str, context: PageContext) -> bool:
    """Whether a page shows what a note is on."""
    view, index = context.view, context.index
    if view.store and store not in view.store:
        return False
    if note.on == "view":
        return parse_view(note.target)[0] == kept(view)
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


def _said(context: PageContext, store: str, note: Note) -> str:
    tag = f"[{note.tag}] " if note.tag else ""
    model = f"on the {words_of(context.index, note)[0]}" if note.on == "model" else ""
    return f"{tag}{note.text} ({', '.join(filter(None, (note.day, store, model, note.id)))})"


def _with(context: PageContext, tag: str) -> str:
    return format_view(dataclasses.replace(context.view, tag=tag))

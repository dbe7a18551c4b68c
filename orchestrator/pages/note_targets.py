"""What a note is on, a cell, a model or a view: from an address or a key, in words, and as a link."""

from __future__ import annotations

import dataclasses

from orchestrator.drawing.style import label
from orchestrator.pages.context import settled
from orchestrator.results.index import Index
from orchestrator.results.live_stores import opened
from orchestrator.results.view import PAGES, PageView, format_view, parse_view
from orchestrator.store.notes import Note, On


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
    return "view", format_view(kept(view))


def address_of(note: Note) -> str:
    """The address of what a note is on; "" for a model."""
    return {"cell": format_view(PageView(page="cell", cell=note.target)), "view": note.target}.get(note.on, "")


def kept(view: PageView) -> PageView:
    """What of a view a note is on: not which stores are beside it, and how much of it is unfolded."""
    return dataclasses.replace(view, store=(), live=False, table=False, portion=1, tag="")


def words_of(index: Index, note: Note) -> list[str]:
    """What a note is on, in words."""
    row = _row_of(index, note)
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


def link_of(index: Index, note: Note) -> str:
    """The address of what a note is on; of a model that of one of its cells."""
    if note.on == "view":
        return note.target
    if (row := _row_of(index, note)) is None:
        return ""
    return format_view(PageView(page="cell", task=index.line_of(row).task, cell=str(index.value("cell", row))))


def _row_of(index: Index, note: Note) -> int | None:
    """A row of the cell, or the first of the model, of a note."""
    if note.on == "view" or not len(index):
        return None
    return index.row_of(note.target) if note.on == "cell" else next(iter(index.rows_of_model(note.target)), None)

"""`signsym note`: notes of people on cells, models and views of a store."""

from __future__ import annotations

import argparse
import shlex

from rich.console import Console

from orchestrator.engine.sweep import show_skipped
from orchestrator.pages.note_targets import address_of, target_of
from orchestrator.store.notes import Note, Notes
from orchestrator.store.store import open_store


def run(parsed: argparse.Namespace, console: Console) -> None:
    """Write, withdraw or list notes. Raises ValueError for a target that the store does not have."""
    store = open_store(parsed.storage)
    notes = Notes(store)
    if parsed.withdraw is not None:
        if parsed.text is not None or parsed.on is not None or parsed.tag:
            raise ValueError("--withdraw: expected no text, --on or --tag beside it")
        note = notes.withdraw(parsed.withdraw)
        console.print(f"withdrawn: {note.id} {note.text}", soft_wrap=True)
    elif parsed.text is not None:
        if parsed.on is None:
            raise ValueError("expected --on beside a text: the address of a page, or the key of a cell or model")
        note = notes.write(parsed.text, *target_of(store.uri, parsed.on), parsed.tag)
        console.print(f"note {note.id}, withdrawn by: {shlex.join(['signsym', 'note', parsed.storage])}"
                      f" --withdraw {note.id}", soft_wrap=True)  # fmt: skip
    else:
        if parsed.on is not None:
            raise ValueError("--on: expected a text before it")
        notes.refresh()
        shown = [note for note in notes.all if parsed.tag in ("", note.tag)]
        for note in shown:
            console.print(_line(note), soft_wrap=True)
        if not shown:
            console.print(
                f"no note{f' with the tag {parsed.tag}' if parsed.tag else ''} in {store.uri}", soft_wrap=True
            )
        show_skipped(notes.skipped, console)


def _line(note: Note) -> str:
    tag = f"[{note.tag}] " if note.tag else ""
    where = address_of(note) or f"model {note.target}"
    return f"{note.id}  {note.day}  {tag}{note.text}  ({where})"

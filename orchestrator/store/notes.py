"""Notes of people on a store: `notes/ID.json`, a small file for each, which nothing but pages and exports reads.

A note is never changed. One that is withdrawn stays, beside `notes/ID-withdrawn.json`, so that two people at two
machines cannot lose each other's.
"""

from __future__ import annotations

import dataclasses
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Literal

from orchestrator.store import records
from orchestrator.store.reasons import reason_of
from orchestrator.store.store import Store

FOLDER = "notes"
#: What a note is on: a cell or a model by its key, or a view by its address.
On = Literal["cell", "model", "view"]
#: Characters of a text and of a target at most.
MOST, LONGEST = 2_000, 8_000
_WITHDRAWN = "-withdrawn"
_ID, _TAG = re.compile(r"[0-9a-f]{8}"), re.compile(r"[\w.-]{1,40}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Note:
    """A note. Raises ValueError for a text, tag or target that no page could show."""

    id: str
    text: str
    on: On
    #: The key of the cell or of the model's fine-tune, or the address of the view.
    target: str
    tag: str = ""
    #: When it was written, UTC, ISO 8601.
    at: str

    def __post_init__(self) -> None:
        for name in ("id", "text", "on", "target", "tag", "at"):
            if not isinstance(getattr(self, name), str):
                raise ValueError(f"expected {name} as a text, got {str(getattr(self, name))[:40]!r}")
        if not self.text.strip() or len(self.text) > MOST or not self.text.isprintable():
            raise ValueError(f"expected a text of one line and at most {MOST:,} characters, got {self.text[:60]!r}")
        if self.tag and not _TAG.fullmatch(self.tag):
            raise ValueError(f"expected a tag of at most 40 letters, digits, '-', '_' and '.', got {self.tag[:60]!r}")
        if self.on not in ("cell", "model", "view") or len(self.target) > LONGEST or not self.target.isprintable():
            raise ValueError(
                f"expected a note on a cell, model or view, got one on {self.on[:20]} {self.target[:60]!r}"
            )
        if not _ID.fullmatch(self.id):
            raise ValueError(f"expected 8 hexadecimal digits as its id, got {self.id[:40]!r}")

    @property
    def day(self) -> str:
        """When it was written, to the minute."""
        return f"{self.at[:16].replace('T', ' ')} UTC"


class Notes:
    """The notes of a store that were not withdrawn; each file is read once."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[str, Note] = {}
        #: Those that stand, the oldest first; and files that are none, with the reason.
        self.all: list[Note] = []
        self.skipped: dict[str, str] = {}

    def refresh(self) -> None:
        """Read what was written since the last call."""
        files, strangers = self._store.listing(FOLDER, ".json")
        names = {file.removesuffix(".json") for file in files}
        withdrawn = {name.removesuffix(_WITHDRAWN) for name in names if name.endswith(_WITHDRAWN)}
        written = {name for name in names if not name.endswith(_WITHDRAWN)}
        skipped = strangers
        for name in sorted(written - self._read.keys()):
            try:
                self._read[name] = _parsed(records.parsed(self._store.read(f"{FOLDER}/{name}.json")), name)
            except FileNotFoundError:
                continue
            except (ValueError, OSError) as error:
                skipped[f"{FOLDER}/{name}.json"] = reason_of(error)
        kept = [self._read[name] for name in written - withdrawn if name in self._read]
        self.all, self.skipped = sorted(kept, key=lambda note: (note.at, note.id)), skipped

    def write(self, text: str, on: On, target: str, tag: str = "") -> Note:
        """Write a note. Raises ValueError for one that no page could show, before anything is written."""
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        note = Note(id=uuid.uuid4().hex[:8], text=text, on=on, target=target, tag=tag, at=at)
        self._store.write_json(f"{FOLDER}/{note.id}.json", dataclasses.asdict(note))
        return note

    def withdraw(self, id: str) -> Note:
        """Withdraw the note whose id is `id`. Raises ValueError where none stands."""
        self.refresh()
        note = next((note for note in self.all if note.id == id), None)
        if note is None:
            raise ValueError(f"{self._store.uri} has no note {id}; its notes: signsym note {self._store.word}")
        at = datetime.now(UTC).isoformat(timespec="milliseconds")
        self._store.write_json(f"{FOLDER}/{id}{_WITHDRAWN}.json", {"id": id, "at": at})
        return note


def _parsed(value: Any, name: str) -> Note:
    fields = {field.name for field in dataclasses.fields(Note)}
    if not isinstance(value, Mapping) or not fields - {"tag"} <= value.keys():
        raise ValueError(f"expected a note with {', '.join(sorted(fields))}")
    # Fields of a newer version are left out.
    note = Note(**{name: value[name] for name in fields & value.keys()})
    if note.id != name:
        raise ValueError(f"it is the note {note.id}")
    return note

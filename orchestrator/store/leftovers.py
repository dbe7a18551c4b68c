"""Files that killed writers left in a store: temporary files, and checkpoints of models that are finished."""

from __future__ import annotations

import re
import time
from collections.abc import Set

from orchestrator.store.store import Store, StoreError

#: Seconds since its last write after which no writer can still need a file: its bytes are in memory when it is opened,
#: so that writing it takes minutes at most.
OLD = 3600.0
#: Folders that sweeps write to.
FOLDERS = (
    *("results", "outcomes", "examples", "alignment", "failures", "grids", "splits", "sweeps", "events"),
    *("models", "merged", "notes"),
)
_TEMPORARY = re.compile(r"\..+\.[0-9a-f]{32}\.tmp")


def remove_leftovers(store: Store, finished: Set[str]) -> int:
    """Remove temporary files, and checkpoints of the models `finished`, older than OLD; returns their number."""
    removed = 0
    for folder in FOLDERS:
        for entry in store.entries(folder, deep=folder == "models"):
            key, _, name = f"{'' if folder == 'models' else '/'}{entry.name}".partition("/")
            over = name == "progress.safetensors" and key in finished
            if entry.reason or not entry.modified or time.time() - entry.modified < OLD:
                continue
            if over or _TEMPORARY.fullmatch(name):
                try:
                    store.remove(f"{folder}/{entry.name}")
                except (OSError, StoreError):
                    # Another sweep removed it first, or this one lacks the permission.
                    continue
                removed += 1
    return removed

"""The grid files that sweeps keep in their store."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

from orchestrator.store.reasons import FOLDER
from orchestrator.store.store import Store

#: Marks a --set value of a stored grid.
SET_MARK = "# --set "


def keep_grid(store: Store, grid: str, text: str, sets: Sequence[str]) -> None:
    """Write the text of a grid file to grids/NAME-HASH.yaml, with its --set values as comments.

    Comments that a stored grid begins with are replaced: swept again with these values it is the same file.
    """
    while text.startswith(SET_MARK):
        text = text.partition("\n")[2]
    data = ("".join(f"{SET_MARK}{setting}\n" for setting in sets) + text).encode()
    path = f"grids/{grid}-{_digest(data)}.yaml"
    try:
        if store.read(path) == data:
            return
    except OSError as error:
        if str(error) == FOLDER:
            # A folder cannot be replaced by the file; the readers of grids name it.
            return
    store.write(path, data)


def grid_names(store: Store) -> list[str]:
    """The names of the stored grids, without their suffix; an entry that is no file is named in `store.skipped`."""
    names, strangers = store.listing("grids", ".yaml")
    store.skipped |= strangers
    return [name.removesuffix(".yaml") for name in names]


def stored_text(store: Store, name: str) -> tuple[str, tuple[str, ...]]:
    """The text of the grid that is stored under `name`, and its --set values.

    Raises ValueError where it is damaged, and OSError where it is no file.
    """
    text = grid_text(store, f"grids/{name}.yaml")
    sets = [line.removeprefix(SET_MARK) for line in text.splitlines() if line.startswith(SET_MARK)]
    return text, tuple(sets)


def grid_text(store: Store, path: str) -> str:
    """The text at `path`. Raises ValueError where its digest is not that of its name, OSError where it is no file."""
    data = store.read(path)
    if path.removesuffix(".yaml").rpartition("-")[2] != _digest(data):
        raise ValueError("damaged or foreign: its name does not hold the digest of its bytes")
    return data.decode()


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()[:12]

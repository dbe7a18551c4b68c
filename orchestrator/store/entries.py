"""The entries of a folder, each with the reason why it is no readable file."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from orchestrator.store.reasons import reason_of_mode


class FolderEntry(NamedTuple):
    """An entry of a folder."""

    name: str
    #: Why it is no readable file, such as that it is a folder; "" for a file.
    reason: str
    #: Time of the last write, in seconds since 1970; 0 where it is unknown.
    modified: float = 0.0
    #: Bytes; 0 where it is no file.
    size: int = 0


def local_entries(folder: Path, deep: bool, prefix: str = "") -> Iterator[FolderEntry]:
    """The entries of a local folder, in any order; with `deep` also those of its folders, as FOLDER/NAME."""
    try:
        scan = os.scandir(folder)
    except FileNotFoundError:
        return
    except (PermissionError, NotADirectoryError) as error:
        yield FolderEntry(prefix, error.strerror or str(error))
        return
    with scan:
        for entry in scan:
            name = prefix + entry.name
            try:
                status = entry.stat()
            except FileNotFoundError:
                # A file that was removed after the listing is left out; a link that leads nowhere is named.
                if entry.is_symlink():
                    yield FolderEntry(name, "it is a link that leads nowhere")
            except OSError as error:
                yield FolderEntry(name, error.strerror or str(error))
            else:
                yield FolderEntry(name, reason_of_mode(status.st_mode), status.st_mtime, status.st_size)
                if deep and stat.S_ISDIR(status.st_mode):
                    yield from local_entries(Path(entry.path), False, f"{name}/")

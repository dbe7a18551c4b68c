"""Why an entry of a store cannot be used, in one line that a terminal can show."""

from __future__ import annotations

import stat

#: The reason for an entry that is a folder.
FOLDER = "it is a folder, not a file"
_KINDS = {
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "it is a pipe (FIFO), not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


def reason_of_mode(mode: int) -> str:
    """Why an entry of this mode is no readable file; "" for a file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "it is no file")


def reason_of(error: Exception) -> str:
    """The first line of the error that reading a file raised."""
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return printable(text.splitlines()[0][:300])


def printable(text: str) -> str:
    """`text` with control characters, and all others that cannot be printed, as escapes."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

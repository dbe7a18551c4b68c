"""What is wrong with what stands in a store, in one line that a terminal can show."""

from __future__ import annotations

import stat

#: Of an entry that is a folder.
FOLDER = "it is a folder, not a file"
_KINDS = {
    stat.S_IFDIR: FOLDER,
    stat.S_IFIFO: "it is a pipe (FIFO), not a file",
    stat.S_IFSOCK: "it is a socket, not a file",
    stat.S_IFCHR: "it is a device, not a file",
    stat.S_IFBLK: "it is a device, not a file",
}


def reason_of_mode(mode: int) -> str:
    """Why an entry of this mode is no file that can be read; "" for a file."""
    return "" if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "it is no file")


def reason_of(error: Exception) -> str:
    """What is wrong with a file, by the error that reading it raised."""
    text = (error.strerror if isinstance(error, OSError) and error.strerror else str(error)) or type(error).__name__
    return printable(text.splitlines()[0][:300])


def printable(text: str) -> str:
    """`text` with what a terminal must not get written out, such as control characters."""
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)

"""The user's folder for what can be made again, such as decoded images and planned grids."""

from __future__ import annotations

import os
from pathlib import Path

#: Names another folder.
VARIABLE = "SIGNSYM_CACHE"


def stated_cache() -> Path | None:
    """The folder that SIGNSYM_CACHE names; None where it is not set."""
    folder = os.environ.get(VARIABLE)
    return Path(folder) if folder else None


def user_cache() -> Path:
    """The folder `signsym` of the user's cache, where no other is stated."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "signsym"

"""How far long work on a store is, for whoever waits for it."""

from __future__ import annotations

from collections.abc import Callable

#: Is called with what is counted, such as "files read", with how many are done, and with how many there are.
Progress = Callable[[str, int, int], None]


def silent(what: str, done: int, total: int) -> None:
    """Tell nobody."""

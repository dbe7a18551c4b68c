"""The user's callbacks of experiment trackers, whose errors end neither a trial nor the sweep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ray import tune
from rich.console import Console


class Tracker(tune.Callback):
    """Calls another callback; an error of it, such as of a server that is away, is printed once and then forgotten.

    Tune ends the run on an error in a callback, and with it all running jobs. Only an error in `setup` is raised.
    """

    def __init__(self, callback: tune.Callback, console: Console) -> None:
        self._callback, self._console = callback, console
        self._printed: set[str] = set()

    def setup(self, *arguments: Any, **info: Any) -> None:
        self._callback.setup(*arguments, **info)

    def attempt(self, event: str, info: dict[str, Any]) -> None:
        """Tell the callback of one event."""
        try:
            getattr(self._callback, event)(**info)
        except Exception as error:
            words = f"{type(self._callback).__name__}: {type(error).__name__}: {error}; the sweep goes on without it"
            if words not in self._printed:
                self._printed.add(words)
                self._console.print(words, style="yellow", soft_wrap=True)

    def __getstate__(self) -> dict[str, Any]:
        # Tune pickles its callbacks at the start, for a restore that never happens.
        return {}


def _attempt(event: str) -> Callable[..., None]:
    return lambda self, **info: self.attempt(event, info)


for _event in [name for name in vars(tune.Callback) if name.startswith("on_")]:
    setattr(Tracker, _event, _attempt(_event))

"""How the lines of a store are called: names, with parameters and settings where lines differ in them."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Mapping

from orchestrator.explorer.line import Line
from signsym_core.registry import ParameterError, UnknownNameError
from signsym_core.tasks import TASKS

_NAMED = ("backbone", "dataset", "attack", "rule")
#: Settings that a title names where the lines of a task differ in them.
_SETTINGS = ("task_params", "weights", "finetune")
_SCORES = {"top1": "robust accuracy", "map": "mAP"}


class Labels:
    """Names of lines. What is named depends on all lines of a task in the store, never on what is shown."""

    def __init__(self, lines: Iterable[Line]) -> None:
        self._params: dict[tuple[str, str, str], set[str]] = {}
        self._settings: dict[tuple[str, str], set[str]] = {}
        for line in lines:
            for column in _NAMED:
                place = (line.task, column, getattr(line, column))
                self._params.setdefault(place, set()).add(getattr(line, f"{column}_params"))
            for name in _SETTINGS:
                self._settings.setdefault((line.task, name), set()).add(getattr(line, name))

    def of(self, line: Line, column: str) -> str:
        """A backbone, data set, attack or rule, with its parameters where lines differ in them."""
        name = str(getattr(line, column))
        if len(self._params.get((line.task, column, name), ())) < 2:
            return name
        inner = ", ".join(f"{key}={value}" for key, value in mapping(getattr(line, f"{column}_params")).items())
        return f"{name}({inner})" if inner else f"{name}(defaults)"

    def title(self, line: Line) -> str:
        """Backbone / data set, with each other setting in which the lines of the task differ."""
        parts = [self.of(line, "backbone"), self.of(line, "dataset")]
        varied = [name for name in _SETTINGS if len(self._settings.get((line.task, name), ())) > 1]
        words = {"task_params": "task"}
        return " / ".join([*parts, *(f"{words.get(name, name)} {_short(getattr(line, name))}" for name in varied)])


@functools.lru_cache(maxsize=256)
def score_name(task: str, params: str, metric: str) -> str:
    """What a line shows: "robust accuracy", or for retrieval "mAP@1000", its k being the task's."""
    name = _SCORES.get(metric, metric)
    if metric != "map":
        return name
    try:
        k = getattr(TASKS.build(task, **mapping(params)), "k", None)
    except (UnknownNameError, ParameterError, TypeError):
        # A task of another version: its k is not known here.
        return name
    return name if k is None else f"{name}@{k}"


def mapping(text: str) -> Mapping[str, object]:
    """A column of parameters; what is none is shown as it is."""
    try:
        found = json.loads(text)
    except ValueError:
        return {"params": text}
    return found if isinstance(found, dict) else {"params": found}


def _short(text: str) -> str:
    """A setting for a title: long hexadecimal keys only by their beginning."""
    found = mapping(text)
    if set(found) == {"params"}:
        return str(found["params"])
    return ", ".join(f"{key}={str(value)[:12]}" for key, value in found.items()) or "defaults"

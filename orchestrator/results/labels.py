"""Labels of the lines of a store: names, with the parameters and settings in which lines differ."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from orchestrator.results import members
from orchestrator.results.line import LINE, Line
from orchestrator.results.test_images import test_images

_NAMED = ("backbone", "dataset", "attack", "rule")
#: Settings that a title names where the lines of a task differ in them.
_SETTINGS = ("task_params", "weights", "finetune")
#: Members whose name alone says nothing.
_NAMED_BY_PARAMETERS = frozenset({"mixed"})
#: A digest, of which the first characters tell it from others.
_KEY = re.compile("[0-9a-f]{32,}")
_SCORES = {"top1": "robust accuracy", "map": "mAP"}
K = TypeVar("K")


class Labels:
    """Labels of lines. They depend on all lines of a task in the store, never on what is shown.

    With `before` those of more lines, such as planned ones.
    """

    def __init__(self, lines: Iterable[Line], before: Labels | None = None) -> None:
        keys = [line.key for line in lines]
        task = LINE.index("task")
        self._params: dict[tuple[str, str, str], set[str]] = _copy(before._params) if before else {}
        self._settings: dict[tuple[str, str], set[str]] = _copy(before._settings) if before else {}
        # There are tens of thousands of lines in a large store, and few different values.
        for column in _NAMED:
            name, params = LINE.index(column), LINE.index(f"{column}_params")
            for a_task, a_name, value in {(key[task], key[name], _own(column, key[params])) for key in keys}:
                self._params.setdefault((a_task, column, a_name), set()).add(value)
        for column in _SETTINGS:
            column_number = LINE.index(column)
            for a_task, value in {(key[task], key[column_number]) for key in keys}:
                self._settings.setdefault((a_task, column), set()).add(value)
        #: The keys in which the settings of a task differ, where they do.
        self._varied = {place: _varied(values) for place, values in self._settings.items() if len(values) > 1}
        self._titles: dict[tuple[str, ...], str] = {}
        self._dimensions: dict[tuple[str, ...], dict[str, str]] = {}

    def of(self, line: Line, column: str) -> str:
        """A backbone, data set, attack or rule, with its parameters where lines differ in them."""
        name = str(getattr(line, column))
        params = _own(column, getattr(line, f"{column}_params"))
        kind, severity = test_images(line.dataset_params)[1:] if column == "dataset" else ("", 0)
        corruption = f", {kind} {severity}" if kind else ""
        varied = len(self._params.get((line.task, column, name), ())) > 1
        # An attack that has both norms is one of L∞ by its name alone.
        if not varied and name not in _NAMED_BY_PARAMETERS and not (column == "attack" and '"norm"' in params):
            return f"{name}{corruption}"
        inner = ", ".join(f"{key}={words(value)}" for key, value in mapping(params).items())
        return (f"{name}({inner})" if inner else f"{name}(defaults)") + corruption

    def title(self, line: Line) -> str:
        """Backbone / data set, with each other setting in which the lines of the task differ, and the store."""
        return f"{self._place(line)} / {line.store}" if line.store else self._place(line)

    def _place(self, line: Line) -> str:
        if line.figure not in self._titles:
            named = [self.of(line, "backbone"), self.of(line, "dataset"), *self.settings(line)]
            self._titles[line.figure] = " / ".join(named)
        return self._titles[line.figure]

    def settings(self, line: Line) -> list[str]:
        """Each other setting in which the lines of the task differ, by that: "task k=20", "finetune lr=0.01"."""
        words = {"task_params": "task"}
        return [
            f"{words.get(name, name)} {_short(getattr(line, name), self._varied[line.task, name])}"
            for name in _SETTINGS
            if (line.task, name) in self._varied
        ]

    def dataset(self, line: Line) -> str:
        """The data set, with each other setting in which the lines of the task differ: a title without its backbone."""
        return self._place(line).partition(" / ")[2]

    def dimensions(self, line: Line) -> dict[str, str]:
        """The labels by which panels are arranged, the same for all lines of a panel."""
        if line.panel not in self._dimensions:
            backbone = self._place(line).partition(" / ")[0]
            dimensions = {
                "store": line.store,
                "backbone": backbone,
                "dataset": self.dataset(line),
                "attack": self.of(line, "attack"),
                "gradient": "no gradient" if line.gradient == "none" else gradient(line),
            }
            self._dimensions[line.panel] = dimensions
        return self._dimensions[line.panel]


def _copy(values: Mapping[K, set[str]]) -> dict[K, set[str]]:
    return {place: set(of_place) for place, of_place in values.items()}


def _own(column: str, params: str) -> str:
    """The parameters of a member, of a data set without the corruption of its test images, which is named apart."""
    return test_images(params).params if column == "dataset" else params


def gradient(line: Line) -> str:
    """The source of a line's gradient: "exact", but "exact (surrogate)" for spikes, which have no gradient."""
    return "exact (surrogate)" if line.gradient == "exact" and line.backbone in members.SPIKING else line.gradient


def score_name(line: Line) -> str:
    """The name of a line's score: "robust accuracy", "certified accuracy", or "mAP@1000" with the k of the task."""
    if members.certifying(line.attack):
        return "certified accuracy"
    return _score_name(line.task, line.task_params, line.metric)


@functools.lru_cache(maxsize=256)
def _score_name(task: str, params: str, metric: str) -> str:
    name = _SCORES.get(metric, metric)
    if metric != "map":
        return name
    k = mapping(params).get("k", members.DEFAULT_K.get(task))
    return name if k is None else f"{name}@{k}"


def mapping(text: str) -> Mapping[str, object]:
    """A column of parameters, parsed; text that is no JSON object comes as {"params": text}."""
    try:
        value = json.loads(text)
    except ValueError:
        return {"params": text}
    return value if isinstance(value, dict) else {"params": value}


def words(value: object) -> str:
    """The value of a parameter as people read it: "{layer1: usf, *: frsf(scale=xavier)}" for rules by layers."""
    if not isinstance(value, dict):
        return str(value)
    if "name" in value:
        inner = ", ".join(f"{key}={words(of_it)}" for key, of_it in value.items() if key != "name")
        return f"{value['name']}({inner})" if inner else str(value["name"])
    ordered = sorted(value.items(), key=lambda entry: entry[0] == "*")
    return f"{{{', '.join(f'{key}: {words(of_it)}' for key, of_it in ordered)}}}"


def _varied(texts: Iterable[str]) -> tuple[str, ...]:
    """The keys in which settings differ, in their order."""
    settings = [{key: json.dumps(value) for key, value in mapping(text).items()} for text in sorted(texts)]
    keys = dict.fromkeys(key for setting in settings for key in setting)
    return tuple(key for key in keys if len({setting.get(key) for setting in settings}) > 1)


def _short(text: str, varied: Iterable[str]) -> str:
    """A setting by its `varied` keys, another one for each value: lines of one title share a panel.

    Hexadecimal keys are cut.
    """
    values = mapping(text)
    if set(values) == {"params"}:
        return str(values["params"])
    shown = ", ".join(f"{key}={_shorter(values[key])}" for key in varied if key in values)
    return shown or f"default {', '.join(varied)}"


def _shorter(value: object) -> str:
    if not isinstance(value, dict):
        return str(value)[:12] if _KEY.fullmatch(str(value)) else str(value)
    # Of an attack that is trained against, all parameters are stored.
    inner = {key: _number(of_it) if isinstance(of_it, float) else of_it for key, of_it in value.items()}
    return words({key: of_it for key, of_it in inner.items() if of_it is not None})


def _number(value: float) -> str:
    """A number of a grid, such as 8/255, of which a result has the value alone: the shorter one of two exact forms."""
    fraction = f"{round(value * 255)}/255"
    exact = 0 < value < 1 and round(value * 255) / 255 == value
    return min(repr(value), fraction, key=len) if exact else repr(value)

"""The state of a page as a value, which only the address of the page holds."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any
from urllib.parse import quote, unquote

PAGES = {
    **{"curves": "Curves", "gap": "Gap", "tables": "Tables", "flags": "Flags", "training": "Training"},
    **{"cell": "Cell", "runs": "Runs", "notes": "Notes"},
}
AXES = {"ordinal": "ordinal", "linear": "linear", "log": "logarithmic"}
#: Dimensions of the panels of a figure; several stores are one of them only where the rows of panels name it.
FACETS = ("store", "backbone", "dataset", "attack", "gradient")
#: What can be left out of a figure.
HIDDEN = ("bands", "seeds", "rings")
#: Longest query that is parsed, in characters; longer ones do not come from this program.
LONGEST = 8000
#: Values of one key at most.
MOST = 200


def _one_of(*known: str) -> Callable[[str], bool]:
    return lambda value: value in known


def _is_number(value: str) -> bool:
    return value.isdecimal() and value.isascii()


def _field(key: str, default: Any, valid: Callable[[str], bool] = lambda value: True) -> Any:
    """A field with its key in the address, and whether a value is valid; filters are checked against the store."""
    return dataclasses.field(default=default, metadata={"key": key, "valid": valid})


@dataclasses.dataclass(frozen=True, kw_only=True)
class PageView:
    """One page with its filters. An empty filter stands for every value."""

    page: str = _field("p", "curves", _one_of(*PAGES))
    task: str = _field("task", "")
    backbone: tuple[str, ...] = _field("b", ())
    dataset: tuple[str, ...] = _field("d", ())
    attack: tuple[str, ...] = _field("a", ())
    gradient: tuple[str, ...] = _field("g", ())
    rule: tuple[str, ...] = _field("r", ())
    seed: tuple[str, ...] = _field("s", (), _is_number)
    #: Names of stores, where several are shown together.
    store: tuple[str, ...] = _field("store", ())
    grid: str = _field("grid", "")
    #: Scale of the epsilon axis.
    x: str = _field("x", "ordinal", _one_of(*AXES))
    #: Dimensions that make the rows of panels; the others make the columns. Empty: chosen by what varies.
    rows: tuple[str, ...] = _field("rows", (), _one_of(*FACETS))
    #: Whether the seeds are drawn as lines instead of dots.
    seed_lines: bool = _field("sl", False, _one_of("1"))
    #: What figures leave out, of HIDDEN.
    hide: tuple[str, ...] = _field("hide", (), _one_of(*HIDDEN))
    #: The epsilon that tables, heat maps and sentences are about, by its label; empty: chosen by the data.
    epsilon: str = _field("e", "")
    #: Whether a curve is of "each" attack, or of the "worst" case over attacks.
    over: str = _field("over", "each", _one_of("each", "worst"))
    #: The baseline of a gap: "bp", or "exact" for the same weights under the exact gradient.
    minus: str = _field("vs", "bp", _one_of("bp", "exact"))
    form: str = _field("as", "lines", _one_of("lines", "heat"))
    #: The paper's table, "worst" for clean and worst case, "all" for the attacks of the filter, or "corruptions";
    #: empty: the clean scores of the task.
    preset: str = _field("t", "", _one_of("1", "2", "3", "4", "worst", "all", "corruptions"))
    #: What a training shows of its layers: "mean", or "each" of them.
    layers: str = _field("ly", "mean", _one_of("mean", "each"))
    #: Whether the table under the figure is open.
    table: bool = _field("tb", False, _one_of("1"))
    #: Number of the portion of the panels or rows that is shown.
    portion: int = _field("part", 1, lambda value: _is_number(value) and 1 <= int(value[:9]) <= 100_000)
    #: Key of a cell, or its beginning.
    cell: str = _field("c", "")
    #: Which images the cell's page shows: "", "gained" or "lost" against BP.
    only: str = _field("only", "", _one_of("gained", "lost"))
    #: The class whose images the cell's page shows, by its name; empty: all.
    label: str = _field("k", "")
    #: The tag of the notes that the page of notes shows; empty: all.
    tag: str = _field("tag", "")
    #: Whether new results are shown automatically.
    live: bool = _field("live", False, _one_of("1"))

    @property
    def apart(self) -> bool:
        """Whether each store has panels of its own."""
        return self.page in ("curves", "gap") and "store" in self.rows

    def turned(self, page: str, **changes: Any) -> PageView:
        """This view on another page, at the first portion."""
        return dataclasses.replace(self, page=page, **{"portion": 1, **changes})


_FIELDS = {field.metadata["key"]: field for field in dataclasses.fields(PageView)}
_DEFAULT = PageView()


def format_view(view: PageView) -> str:
    """The address of a view: "?" and what differs from the default, names percent-encoded."""
    items = []
    for key, field in _FIELDS.items():
        value = getattr(view, field.name)
        if value == field.default:
            continue
        values = value if isinstance(value, tuple) else ("1" if value is True else str(value),)
        items.append(f"{key}={','.join(quote(text, safe='') for text in values)}")
    return "?" + "&".join(items)


def parse_view(search: str | None) -> tuple[PageView, list[str]]:
    """The view of an address, and a sentence for each part of it that is not understood and was left out.

    `parse_view(format_view(v)) == (v, [])` for every view. Nothing raises: addresses are written by people.
    """
    text = (search or "").removeprefix("?")
    if len(text) > LONGEST:
        return _DEFAULT, [f"The address is longer than {LONGEST:,} characters and was not read."]
    fields: dict[str, Any] = {}
    problems = []
    for item in filter(None, text.split("&")):
        key, _, raw = item.partition("=")
        if key not in _FIELDS:
            problems.append(f"The address has {_shown(key)}, which is no filter or option.")
            continue
        name, valid = _FIELDS[key].name, _FIELDS[key].metadata["valid"]
        values = [unquote(value) for value in raw.split(",")][:MOST]
        for value in values:
            if value and not valid(value):
                problems.append(f"The address asks for {_shown(value)} as {name.replace('_', ' ')}, which is unknown.")
        known = [value for value in values if value and valid(value)]
        if known:
            fields[name] = _typed(name, known)
    return dataclasses.replace(_DEFAULT, **fields), problems


def _typed(name: str, values: list[str]) -> Any:
    default = getattr(_DEFAULT, name)
    if isinstance(default, tuple):
        return tuple(dict.fromkeys(values))
    if isinstance(default, bool):
        return True
    return int(values[0]) if isinstance(default, int) else values[0]


def _shown(text: str) -> str:
    return f"“{text[:60]}{'…' * (len(text) > 60)}”"

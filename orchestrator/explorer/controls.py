"""The filter bar: one control for each part of a view, on all pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from dash import dcc, html
from dash.development.base_component import Component

from orchestrator.drawing import style
from orchestrator.explorer.mantine import dmc
from orchestrator.pages.paper_tables import preset_of
from orchestrator.results.index import Index
from orchestrator.results.line import FILTERS
from orchestrator.results.live_stores import Results
from orchestrator.results.view import AXES, FACETS, HIDDEN, PAGES, PageView

#: On which pages a control has an effect.
_ALL = tuple(PAGES)
_SCORES = tuple(page for page in PAGES if page not in ("runs", "notes"))
_CHOSEN = ("backbone", "dataset", "attack", "gradient", "rule", "seed", "store")
#: What a training does not depend on.
_ATTACKED = tuple(page for page in _SCORES if page != "training")
_LABELS = {
    "dataset": "data set",
    "gradient": "gradient source",
    "rule": "rules",
    "seed": "seeds",
    "store": "stores",
    "rows": "rows of panels",
    "hide": "leave out",
}


@dataclasses.dataclass(frozen=True)
class Control:
    """A control for the field `name` of a view, and the pages that it is shown on."""

    name: str
    pages: tuple[str, ...]
    #: "value" or "checked": the property that holds its value.
    holds: str = "value"

    @property
    def id(self) -> str:
        return f"filter-{self.name}"


CONTROLS = (
    Control("task", _SCORES),
    *(
        Control(name, {"store": _ALL, "attack": _ATTACKED, "gradient": _ATTACKED}.get(name, _SCORES))
        for name in _CHOSEN
    ),
    Control("grid", tuple(page for page in PAGES if page != "notes")),
    Control("rows", ("curves", "gap")),
    Control("x", ("curves", "gap")),
    Control("over", ("curves",)),
    Control("minus", ("gap",)),
    Control("form", ("gap",)),
    Control("epsilon", ("gap", "tables")),
    Control("preset", ("tables",)),
    Control("only", ("cell",)),
    Control("layers", ("training",)),
    Control("hide", ("curves", "gap")),
    Control("seed_lines", ("curves",), "checked"),
)


def shown(control: Control, view: PageView, stores: Sequence[str] = ()) -> bool:
    """Whether the control has an effect on the view of these stores; none where there is a single one."""
    name = control.name
    if view.page not in control.pages or (name == "store" and not stores):
        return False
    if view.page == "cell" and view.cell:
        # The page of one cell does not depend on the other filters.
        return name in ("seed", "store", "only")
    if view.page == "tables" and preset_of(view.preset, view.task) in ("1", "2", "corruptions"):
        return name not in ("attack", "gradient", "epsilon")
    if (view.page == "curves" and view.over == "worst") or (view.page == "tables" and view.preset == "worst"):
        # A worst case is over all gradients, and its panels are models.
        return name not in ("gradient", "rows")
    if view.page == "gap":
        return name not in (("x", "rows", "hide") if view.form == "heat" else ())
    return True


def bar() -> Component:
    """The controls, empty."""
    return html.Form([_component(control) for control in CONTROLS], className="filters", **{"aria-label": "Filters"})


def _component(control: Control) -> Component:
    name, label = control.name, _LABELS.get(control.name, control.name).capitalize()
    if name in (*_CHOSEN, *_EMPTY):
        component: Component = dmc.MultiSelect(
            id=control.id, label=label, placeholder=_EMPTY.get(name, "all"), searchable=True,
            clearable=True, size="xs", data=[], value=[], hidePickedOptions=False, maxDropdownHeight=320,
        )  # fmt: skip
    elif name in ("task", "grid", "epsilon"):
        component = dmc.Select(id=control.id, label=label, size="xs", data=[], value=None, clearable=name != "task",
                          searchable=True, placeholder="all" if name == "grid" else "automatic")  # fmt: skip
    elif name == "seed_lines":
        component = dmc.Switch(id=control.id, label="Seeds as lines", size="xs", checked=False)
    else:
        component = html.Div(
            [html.Span(_SEGMENTS[name][0], className="legend", id=f"{control.id}-label"), _segments(control)],
            role="group",
            **{"aria-labelledby": f"{control.id}-label"},
        )
    return html.Div(component, id=f"{control.id}-box", className="filter")


#: What stands in an empty control, where it is not "all".
_EMPTY = {"rows": "automatic", "hide": "nothing"}
_SEGMENTS: dict[str, tuple[str, list[tuple[str, str]]]] = {
    "x": ("ε axis", list(AXES.items())),
    "over": ("Curves of", [("each", "each attack"), ("worst", "worst case")]),
    "minus": ("Gap to", [("bp", "BP"), ("exact", "exact gradient")]),
    "form": ("As", [("lines", "lines"), ("heat", "heat map")]),
    "preset": (
        "Table",
        [
            ("", "what was run"),
            *((n, n) for n in "1234"),
            ("worst", "worst case"),
            ("all", "all attacks"),
            ("corruptions", "corruptions"),
        ],
    ),
    "layers": ("Layers", [("mean", "mean"), ("each", "each by itself")]),
    "only": ("Images", [("", "all"), ("gained", "broken under BP only"), ("lost", "broken under the rule only")]),
}


def _segments(control: Control) -> Component:
    # An empty value is no value to a segmented control.
    data = [{"value": value or "-", "label": label} for value, label in _SEGMENTS[control.name][1]]
    return dmc.SegmentedControl(id=control.id, data=data, value=data[0]["value"], size="xs")


def options(control: Control, view: PageView, index: Index, data: Results, epsilons: list[str]) -> list[Any] | None:
    """The choices of a control; None where they never change."""
    if control.name in FILTERS:
        return [{"value": v, "label": _option(control.name, v)} for v in index.choices(control.name)]
    if control.name == "seed":
        return [str(seed) for seed in index.seeds]
    if control.name == "grid":
        return list(data.status.names)
    if control.name == "store":
        return list(data.names)
    if control.name == "rows":
        return [{"value": name, "label": _LABELS.get(name, name)} for name in FACETS if name != "store" or data.names]
    if control.name == "hide":
        return list(HIDDEN)
    return epsilons if control.name == "epsilon" else None


def _option(name: str, value: str) -> str:
    return style.label(value) if name == "rule" else "no gradient" if value == "none" and name == "gradient" else value


def value_of(control: Control, view: PageView) -> Any:
    """A view's field as the value of its control."""
    value = getattr(view, control.name)
    if control.name in _SEGMENTS:
        return value or "-"
    return list(value) if isinstance(value, tuple) else value if value != "" else None


def changed(view: PageView, values: list[Any]) -> PageView:
    """The view with the values of the controls."""
    changes: dict[str, Any] = {}
    for control, value in zip(CONTROLS, values, strict=True):
        if control.name in _SEGMENTS:
            changes[control.name] = "" if value == "-" else value
        elif isinstance(getattr(view, control.name), tuple):
            changes[control.name] = tuple(value or ())
        else:
            changes[control.name] = value if value is not None else ""
    if "preset" in changes and changes["task"] != view.task and changes["preset"] == view.preset:
        # Each table is about one task: another task resets the choice of the table.
        changes["preset"] = ""
    new = dataclasses.replace(view, **changes)
    return new if new == view else dataclasses.replace(new, portion=1)


def navigation() -> Component:
    """The pages."""
    links = [dcc.Link(label, id=f"page-{name}", href=f"?p={name}", refresh=False) for name, label in PAGES.items()]
    return html.Nav(links, className="pages", **{"aria-label": "Pages"})

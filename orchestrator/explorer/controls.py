"""The filter bar: one control for each part of a view, on all pages."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any, Literal

from dash import dcc, html
from dash.development.base_component import Component

from orchestrator.drawing import style
from orchestrator.explorer.mantine import dmc
from orchestrator.pages.paper_tables import preset_of
from orchestrator.results.index import Index
from orchestrator.results.line import FILTERS
from orchestrator.results.live_stores import Results
from orchestrator.results.view import AXES, FACETS, HIDDEN, PAGES, PageView

#: On which pages a control has an effect; a training depends on no attack.
_SCORES = tuple(page for page in PAGES if page not in ("runs", "notes"))
_ATTACKED = tuple(page for page in _SCORES if page != "training")


@dataclasses.dataclass(frozen=True)
class Control:
    """A control for the field `name` of a view, and the pages that it is shown on."""

    name: str
    label: str
    pages: tuple[str, ...]
    #: Whether it holds several values or one, or is a switch.
    kind: Literal["several", "one", "switch"] = "several"
    #: What stands in an empty one.
    empty: str = "all"
    #: The values that one is chosen of, with their words, where these never change.
    segments: tuple[tuple[str, str], ...] = ()

    @property
    def id(self) -> str:
        return f"filter-{self.name}"

    @property
    def holds(self) -> str:
        """The property of its component that holds its value."""
        return "checked" if self.kind == "switch" else "value"

    @property
    def offers(self) -> bool:
        """Whether its choices depend on the results."""
        return self.kind != "switch" and not self.segments


_EACH = (("mean", "mean"), ("each", "each by itself"))
_IMAGES = (("", "all"), ("gained", "broken under BP only"), ("lost", "broken under the rule only"))
_TABLES = (
    *(("", "what was run"), *((number, number) for number in "1234")),
    *(("worst", "worst case"), ("all", "all attacks"), ("corruptions", "corruptions")),
)
CONTROLS = (
    Control("task", "Task", _SCORES, "one", "automatic"),
    Control("backbone", "Backbone", _SCORES),
    Control("dataset", "Data set", _SCORES),
    Control("attack", "Attack", _ATTACKED),
    Control("gradient", "Gradient source", _ATTACKED),
    Control("rule", "Rules", _SCORES),
    Control("seed", "Seeds", _SCORES),
    Control("store", "Stores", tuple(PAGES)),
    Control("grid", "Grid", tuple(page for page in PAGES if page != "notes"), "one"),
    Control("rows", "Rows of panels", ("curves", "gap"), empty="automatic"),
    Control("x", "ε axis", ("curves", "gap"), segments=tuple(AXES.items())),
    Control("over", "Curves of", ("curves",), segments=(("each", "each attack"), ("worst", "worst case"))),
    Control("minus", "Gap to", ("gap",), segments=(("bp", "BP"), ("exact", "exact gradient"))),
    Control("form", "As", ("gap",), segments=(("lines", "lines"), ("heat", "heat map"))),
    Control("epsilon", "Epsilon", ("gap", "tables"), "one", "automatic"),
    Control("preset", "Table", ("tables",), segments=_TABLES),
    Control("only", "Images", ("cell",), segments=_IMAGES),
    Control("layers", "Layers", ("training",), segments=_EACH),
    Control("hide", "Leave out", ("curves", "gap"), empty="nothing"),
    Control("seed_lines", "Seeds as lines", ("curves",), "switch"),
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
    given: dict[str, Any] = {"id": control.id, "size": "xs"}
    listed = given | {"label": control.label, "placeholder": control.empty, "searchable": True, "data": []}
    if control.segments:
        # An empty value is no value to a segmented control.
        data = [{"value": value or "-", "label": label} for value, label in control.segments]
        words = html.Span(control.label, className="legend", id=f"{control.id}-label")
        segments = dmc.SegmentedControl(**given, data=data, value=data[0]["value"])
        component: Component = html.Div([words, segments], role="group", **{"aria-labelledby": words.id})
    elif control.kind == "switch":
        component = dmc.Switch(**given, label=control.label, checked=False)
    elif control.kind == "one":
        component = dmc.Select(**listed, clearable=control.name != "task", value=None)
    else:
        component = dmc.MultiSelect(**listed, clearable=True, value=[], hidePickedOptions=False, maxDropdownHeight=320)
    return html.Div(component, id=f"{control.id}-box", className="filter")


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
        labels = {one.name: one.label.lower() for one in CONTROLS}
        return [{"value": name, "label": labels[name]} for name in FACETS if name != "store" or data.names]
    if control.name == "hide":
        return list(HIDDEN)
    return epsilons if control.name == "epsilon" else None


def _option(name: str, value: str) -> str:
    return style.label(value) if name == "rule" else "no gradient" if value == "none" and name == "gradient" else value


def value_of(control: Control, view: PageView) -> Any:
    """A view's field as the value of its control."""
    value = getattr(view, control.name)
    if control.segments:
        return value or "-"
    return list(value) if isinstance(value, tuple) else value if value != "" else None


def changed(view: PageView, values: list[Any]) -> PageView:
    """The view with the values of the controls."""
    changes: dict[str, Any] = {}
    for control, value in zip(CONTROLS, values, strict=True):
        if control.segments:
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

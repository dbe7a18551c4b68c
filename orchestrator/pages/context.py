"""The input of every page: a snapshot of the store and the view."""

from __future__ import annotations

import dataclasses
import shlex
import textwrap
from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Link, Links, Page, Words
from orchestrator.pages.paper_tables import PRESETS, preset_of
from orchestrator.pages.survivors import survivors
from orchestrator.results.certificates import out_of_reach
from orchestrator.results.curve import Curve
from orchestrator.results.index import Index
from orchestrator.results.labels import Labels
from orchestrator.results.line import FILTERS, Line
from orchestrator.results.live_stores import Results
from orchestrator.results.members import measuring
from orchestrator.results.query import Query
from orchestrator.results.snapshot import Computed, Snapshot
from orchestrator.results.status import Status
from orchestrator.results.test_images import test_images
from orchestrator.results.view import PageView, format_view, parse_view


@dataclasses.dataclass(kw_only=True)
class PageContext:
    """A snapshot of a store, and a view whose values the store has."""

    data: Results
    snapshot: Snapshot
    view: PageView
    #: Problems to report on the page.
    problems: list[str] = dataclasses.field(default_factory=list)
    #: Those of them that say of a part of the address what is shown in its place.
    replaced: list[str] = dataclasses.field(default_factory=list)

    @property
    def status(self) -> Status:
        """Planned cells without results, of all grids; the first call may take seconds."""
        return self.data.planned()

    @property
    def audit(self) -> str:
        """The command that audits what is shown."""
        return shlex.join(["signsym", "audit", *self.data.uris])

    @property
    def index(self) -> Index:
        """The lines and rows of the snapshot."""
        return self.snapshot.index

    @property
    def labels(self) -> Labels:
        """The labels of its lines."""
        return self.index.labels

    def address(self, page: str, **changes: Any) -> str:
        """The address of this view on another page, at the first portion."""
        return format_view(self.view.turned(page, **changes))

    def stores(self, rows: Iterable[int]) -> str:
        """The names of the stores that rows are from; "" where there is one store."""
        return ", ".join(dict.fromkeys(self.data.store_of(self.index, row) for row in rows))

    @property
    def computed(self) -> Computed:
        """What is computed over the view's seeds: verdicts, flags, worst cases."""
        return self.snapshot.computed(map(int, self.view.seed))

    @property
    def query(self) -> Query:
        """The curves over the view's seeds."""
        return self.computed.query

    def lines(self, clean: bool = False) -> list[Line]:
        """The lines that the filters choose: those under attack, or those of clean performance on clean images."""
        lines = self._chosen(clean)
        return [line for line in lines if not test_images(line.dataset_params).kind] if clean else lines

    def attacking(self) -> list[Line]:
        """The lines under attack that the filters choose, but those of attacks that only measure."""
        return [line for line in self.lines() if not measuring(line.attack)]

    def corrupted(self) -> list[Line]:
        """The lines that the filters choose of those without an attack on corrupted test images."""
        return [line for line in self._chosen(clean=True) if test_images(line.dataset_params).kind]

    def compared(self) -> list[Line]:
        """All lines that the filters choose, and of BP those that they are compared with."""
        any_rule = dataclasses.replace(self, view=self.view.turned(self.view.page, rule=()))
        lines = {line.number: line for clean in (True, False) for line in self._chosen(clean)}
        figures = {line.figure for line in lines.values()}
        of_bp = (line for clean in (True, False) for line in any_rule._chosen(clean) if line.rule == "bp")
        lines |= {line.number: line for line in of_bp if line.figure in figures}
        return [self.index.lines[number] for number in sorted(lines)]

    def _chosen(self, clean: bool) -> list[Line]:
        view = self.view
        chosen_values = {name: getattr(view, name) for name in ("backbone", "dataset", "rule")}
        if not clean:
            chosen_values |= {"attack": view.attack, "gradient": view.gradient}
        chosen = list(self.index.chosen(clean, task=(view.task,) if view.task else (), **chosen_values))
        if not view.grid:
            return chosen
        planned = self.status.lines(view.grid)
        return [line for line in chosen if line.grid_key in planned]

    def epsilons(self) -> dict[str, float]:
        """Every epsilon above 0 of the lines that the filters choose, ascending, by its label."""
        epsilons = self.index.epsilons(self.lines())
        return {label: epsilon for label, epsilon in epsilons.items() if epsilon > 0}

    def curves(self, lines: Iterable[Line]) -> list[Curve]:
        """The curves of `lines`; lines without a curve are reported on the page."""
        lines = list(lines)
        curves = self.query.curves(lines)
        self.problems += [words for words in out_of_reach(self.index, curves) if words not in self.problems]
        wrong = [self.query.ambiguous[line.number] for line in lines if line.number in self.query.ambiguous]
        self.problems += [f"Not drawn: {reason}." for reason in wrong[:5]]
        if len(wrong) > 5:
            self.problems.append(f"... and {len(wrong) - 5} more lines are not drawn for the same reason.")
        bare = sum(self.query.without_outcomes.get(line.number, 0) for line in lines)
        if bare:
            points = "1 point has results" if bare == 1 else f"{bare:,} points have results"
            self.problems.append(f"{points} of several seeds but no outcomes to make an interval of: not drawn.")
        return curves

    def nothing(self, title: str) -> Page:
        """The page where no line under attack fits: which filters to remove, or where what there is stands."""
        view = self.view
        if (lines := self.lines()) and not self.attacking():
            names = ", ".join(dict.fromkeys(line.attack for line in lines))
            sentence = (
                f"What {names} measures is on the page Gap; what it leaves robust is in no worst case and no verdict."
            )
            return self.finished(title, [Words(title="Measurements alone", sentences=[sentence], tone="todo")])
        sentences = []
        for name in ("backbone", "dataset", "attack", "gradient", "rule"):
            if getattr(view, name):
                fit = len(dataclasses.replace(self, view=view.turned(view.page, **{name: ()})).lines())
                values = ", ".join(getattr(view, name))
                sentences.append(f"Without {name} = {values}: {style.counted(fit, 'line')} under attack.")
        if view.grid:
            fit = len(dataclasses.replace(self, view=view.turned(view.page, grid="")).lines())
            sentences.append(f"Without grid = {view.grid}: {style.counted(fit, 'line')} under attack.")
        if sentences:
            return self.finished(title, [Words(title="Nothing fits the filter", sentences=sentences, tone="todo")])
        sentence = f"The store has no attack on a model of the task {view.task} yet: a grid's attacks ask for some."
        presets = {"": "clean scores"} if self.lines(clean=True) else {}
        presets |= {"corruptions": "scores under natural corruptions"} if self.corrupted() else {}
        links = [Link(text=text, search=self.address("tables", preset=name)) for name, text in presets.items()]
        links.append(Link(text="trainings over their epochs", search=self.address("training")))
        words = Words(title="No attack yet", sentences=[sentence], tone="todo")
        return self.finished(title, [words, Links(title="What there is", links=links)])

    def finished(self, title: str, blocks: Sequence[Block]) -> Page:
        """The page, with the problems first."""
        wrong = [Words(title="Problems", sentences=self.problems, tone="warning")] if self.problems else []
        return Page(title=title, blocks=[*wrong, *blocks])

    def replace(self, problem: str) -> None:
        """Report what is shown in the place of a part of the address."""
        self.problems.append(problem)
        self.replaced.append(problem)

    def turning(self, portion: int, portions: int, shown: int, total: int, what: str) -> list[Block]:
        """Links to the other portions of a page that is too long."""
        if portion != self.view.portion:
            self.replace(f"There is no part {self.view.portion:,}: part {portion:,}, the last one, is here.")
        if portions == 1:
            return []
        # The first, the last and the neighbours: a store may have thousands of portions.
        near = [number for number in range(1, portions + 1) if number in (1, portions) or abs(number - portion) <= 5]
        links = [
            Link(
                text=f"{number} (this one)" if number == portion else str(number),
                search=format_view(dataclasses.replace(self.view, portion=number)),
            )
            for number in near
        ]
        return [Links(title=f"{shown:,} of {total:,} {what} are here. Parts", links=links)]


def context_of(data: Results, search: str | None) -> PageContext:
    """The context of an address."""
    view, problems = parse_view(search)
    view, snapshot, unknown = settled(view, data)
    context = PageContext(data=data, snapshot=snapshot, view=view)
    skipped = [f"Skipped {name}: {reason}." for name, reason in sorted(data.skipped.items())]
    if len(skipped) > 10:
        names = ", ".join(sorted(data.skipped)[10:210])
        skipped = [*skipped[:10], f"Skipped as well, {len(skipped) - 10:,} files: {names}."]
    ignored = [f"{sentence} This value of the filter is ignored." for sentence in unknown]
    lines, seeds = context.compared(), {*map(int, view.seed)}
    left = survivors(snapshot.index, data.status, lines, seeds)
    mixed = snapshot.mixtures(context.query.rows(lines))
    context.problems = [*problems, *ignored, *snapshot.problems, *mixed, *left, *skipped]
    return context


def settled(view: PageView, data: Results) -> tuple[PageView, Snapshot, list[str]]:
    """The view without values that no store has, the results of its stores, and a sentence for each such value."""
    problems: list[str] = []
    view = _without_unknown(view, "store", set(data.names), problems)
    snapshot = data.chosen(view.store, view.apart)
    index = snapshot.index
    known = {name: set(index.choices(name)) for name in FILTERS} | {"seed": {str(seed) for seed in index.seeds}}
    known["grid"] = set(data.status.names)
    for name, stored in known.items():
        view = _without_unknown(view, name, stored, problems)
    if view.page == "tables" and (task := PRESETS[preset_of(view.preset, view.task)].task):
        # Each of the paper's tables is about one task, whatever the filter says.
        view = dataclasses.replace(view, task=task)
    elif not view.task and known["task"]:
        view = dataclasses.replace(view, task=index.choices("task")[0])
    return view, snapshot, problems if len(index) else []


def _without_unknown(view: PageView, name: str, stored: set[str], problems: list[str]) -> PageView:
    """The view without the values of a filter that are not among those `stored`, with a sentence about them."""
    value = getattr(view, name)
    values = value if isinstance(value, tuple) else ((value,) if value else ())
    kept = tuple(text for text in values if text in stored)
    if kept == values:
        return view
    missing = ", ".join(f"“{text[:60]}”" for text in values if text not in stored)
    known = textwrap.shorten(", ".join(sorted(stored)) or "none", 300, placeholder=" ...")
    problems.append(f"The store has no {name} {missing}; known: {known}.")
    changes: dict[str, Any] = {name: kept if isinstance(value, tuple) else ""}
    return dataclasses.replace(view, **changes)


def empty(context: PageContext) -> Page:
    """The page of a store without results: what runs or failed, or else what to run."""
    status, uri = context.data.status, context.data.uri
    sentences = [f"The store {uri} holds no result that can be read."]
    blocks: list[Block] = []
    jobs = [style.counted(status.trials, "trial") + " running"] if status.trials else []
    jobs += [style.counted(status.failures, "job") + " failed"] if status.failures else []
    if jobs:
        sentences.append(f"Of its sweeps, {' and '.join(jobs)}. This page shows results as they come.")
        text = "what each job does, why it failed, and how to try it again"
        blocks.append(Links(title="Runs", links=[Link(text=text, search=context.address("runs"))]))
    else:
        sentences.append("Run a sweep into it; this page shows its results as they come:")
    commands = [] if jobs else [f"signsym sweep quickstart --storage {shlex.quote(context.data.uris[0])}"]
    words = Words(title="No results yet", sentences=sentences, tone="todo", commands=commands)
    return context.finished("No results yet", [words, *blocks])

"""What every page is made from."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Link, Links, Page, Words
from orchestrator.pages.paper_tables import PRESETS, preset_of
from orchestrator.results.curve import Curve
from orchestrator.results.data import Data, Snapshot
from orchestrator.results.evidence import Models
from orchestrator.results.flags import Flags
from orchestrator.results.line import FILTERS, Line
from orchestrator.results.query import Query
from orchestrator.results.status import Status
from orchestrator.results.view import View, format_view, parse_view


@dataclasses.dataclass(kw_only=True)
class Context:
    """One moment of a store, and a view of it whose values the store knows."""

    data: Data
    snapshot: Snapshot
    view: View
    storage: str
    #: What is wrong, to be named on the page.
    problems: list[str] = dataclasses.field(default_factory=list)

    @property
    def status(self) -> Status:
        """What was asked of the store and is not there; known for certain, which may take seconds at the beginning."""
        return self.data.planned()

    @property
    def models(self) -> Models:
        """The verdicts on models, over the view's seeds."""
        return self.snapshot.models(self.query)

    @property
    def flags(self) -> Flags:
        """The checks of masking, over the view's seeds."""
        return self.snapshot.flags(self.query)

    @property
    def query(self) -> Query:
        """The curves over the view's seeds."""
        return self.snapshot.query(tuple(sorted(int(seed) for seed in self.view.seed)))

    def lines(self, clean: bool = False) -> list[Line]:
        """The lines that the filters choose: those under attack, or those of clean performance."""
        view = self.view
        wanted = {name: getattr(view, name) for name in ("backbone", "dataset", "rule")}
        if not clean:
            wanted |= {"attack": view.attack, "gradient": view.gradient}
        chosen = list(self.snapshot.index.chosen(clean, task=(view.task,) if view.task else (), **wanted))
        if not view.grid:
            return chosen
        asked = self.status.lines(view.grid)
        return [line for line in chosen if line.asked in asked]

    def epsilons(self) -> dict[str, float]:
        """Every epsilon above 0 of the lines that the filters choose, ascending, by its label."""
        found = self.snapshot.index.epsilons(self.lines())
        return {label: epsilon for label, epsilon in found.items() if epsilon > 0}

    def curves(self, lines: Iterable[Line]) -> list[Curve]:
        """The curves of `lines`; what is wrong with the others is named on the page."""
        lines = list(lines)
        found = self.query.curves(lines)
        wrong = [self.query.ambiguous[line.number] for line in lines if line.number in self.query.ambiguous]
        self.problems += [f"Not drawn: {reason}." for reason in wrong[:5]]
        if len(wrong) > 5:
            self.problems.append(f"... and {len(wrong) - 5} more lines are not drawn for the same reason.")
        bare = sum(self.query.bare.get(line.number, 0) for line in lines)
        if bare:
            points = "1 point has results" if bare == 1 else f"{bare:,} points have results"
            self.problems.append(f"{points} of several seeds but no outcomes to make an interval of: not drawn.")
        return found

    def nothing(self, title: str) -> Page:
        """What is said where no line fits the filter: which part of it to take away."""
        view = self.view
        sentences = []
        for name in ("backbone", "dataset", "attack", "gradient", "rule"):
            if getattr(view, name):
                fit = len(dataclasses.replace(self, view=view.turned(view.page, **{name: ()})).lines())
                asked = ", ".join(getattr(view, name))
                sentences.append(f"Without {name} = {asked}: {style.counted(fit, 'line')} under attack.")
        if view.grid:
            fit = len(dataclasses.replace(self, view=view.turned(view.page, grid="")).lines())
            sentences.append(f"Without grid = {view.grid}: {style.counted(fit, 'line')} under attack.")
        if not sentences:
            sentences = [f"The store has no attack on a model of the task {view.task} yet; clean scores are in Tables."]
        found = Words(title="Nothing fits the filter", sentences=sentences, tone="todo")
        return self.finished(title, [found])

    def finished(self, title: str, blocks: Sequence[Block]) -> Page:
        """The page with what is wrong before all else."""
        wrong = [Words(title="To be known", sentences=self.problems, tone="warning")] if self.problems else []
        return Page(title=title, blocks=[*wrong, *blocks])

    def turning(self, part: int, parts: int, shown: int, total: int, what: str) -> list[Block]:
        """The ways to the other parts of a page that is too long."""
        if part != self.view.part:
            self.problems.append(f"There is no part {self.view.part:,}: part {part:,}, the last one, is here.")
        if parts == 1:
            return []
        # The first, the last and those around this one: a store may have thousands of parts.
        near = [at for at in range(1, parts + 1) if at in (1, parts) or abs(at - part) <= 5]
        links = [
            Link(
                text=f"{at} (this one)" if at == part else str(at),
                search=format_view(dataclasses.replace(self.view, part=at)),
            )
            for at in near
        ]
        return [Links(title=f"{shown:,} of {total:,} {what} are here. Parts", links=links)]


def context_of(data: Data, search: str | None) -> Context:
    """What an address asks for."""
    view, problems = parse_view(search)
    snapshot, status = data.snapshot, data.status
    view, unknown = settled(view, snapshot, status)
    context = Context(data=data, snapshot=snapshot, view=view, storage=data.store.uri)
    skipped = [f"Skipped {name}: {reason}." for name, reason in sorted(data.skipped.items())]
    if len(skipped) > 10:
        names = ", ".join(sorted(data.skipped)[10:210])
        skipped = [*skipped[:10], f"Skipped as well, {len(skipped) - 10:,} files: {names}."]
    context.problems = [*problems, *unknown, *skipped]
    return context


def settled(view: View, snapshot: Snapshot, status: Status) -> tuple[View, list[str]]:
    """The view with what the store does not have left out, and a sentence for each of these."""
    index, problems = snapshot.index, []
    changes: dict[str, object] = {}
    known = {name: set(index.choices(name)) for name in FILTERS} | {"seed": {str(seed) for seed in index.seeds}}
    known["grid"] = set(status.names)
    for name, there in known.items():
        value = getattr(view, name)
        asked = value if isinstance(value, tuple) else ((value,) if value else ())
        kept = tuple(text for text in asked if text in there)
        if kept != asked:
            missing = ", ".join(f"“{text[:60]}”" for text in asked if text not in there)
            problems.append(f"The store has no {name} {missing}: that part of the filter is left out.")
            changes[name] = kept if isinstance(value, tuple) else ""
    view = dataclasses.replace(view, **changes)  # type: ignore[arg-type]
    if view.page == "tables" and (task := PRESETS[preset_of(view.preset, view.task)].task):
        # Each of the paper's tables is about one task, whatever the filter says.
        view = dataclasses.replace(view, task=task)
    elif not view.task and known["task"]:
        view = dataclasses.replace(view, task=index.choices("task")[0])
    return view, problems if len(index) else []


def empty(context: Context) -> Page:
    """What to run where there is nothing to be seen."""
    words = Words(
        title="No results yet",
        sentences=[
            f"The store {context.storage} holds no result that can be read. Run a sweep into it; this page shows its "
            "results as they come:"
        ],
        tone="todo",
        commands=[f"signsym sweep grids/quickstart.yaml --storage {context.storage}"],
    )
    return context.finished("Nothing to see yet", [words])

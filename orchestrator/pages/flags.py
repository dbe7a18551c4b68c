"""Which checks of gradient masking each line passes, fails, or cannot be put to."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Column, Entry, Matrix, Page, State, Table, Value, Words
from orchestrator.drawing.facets import portion
from orchestrator.pages.context import Context
from orchestrator.results.flags import CHECKS, Found
from orchestrator.results.line import Line
from orchestrator.results.view import format_view

_COLUMNS = (
    Column(key="model", label="model"),
    Column(key="attack", label="attack"),
    Column(key="gradient", label="gradient"),
    Column(key="rule", label="rule"),
    Column(key="flag", label="check"),
    Column(key="state", label="state"),
    Column(key="epsilon", label="ε"),
    Column(key="first", label="first number", kind="number"),
    Column(key="second", label="second number", kind="number"),
    Column(key="images", label="images", kind="number"),
    Column(key="seeds", label="seeds", kind="number"),
    Column(key="words", label="evidence"),
)
_VERDICTS = (
    Column(key="rule", label="rule"),
    Column(key="model", label="model"),
    Column(key="verdict", label="verdict"),
    Column(key="words", label="in words"),
    Column(key="raised", label="what raised it"),
)
#: Lines of one part.
MOST = 40


def page(context: Context) -> Page:
    """A row for each line, a column for each check."""
    lines = context.lines()
    if not lines:
        return context.nothing("Flags")
    part, parts, shown = portion(context.view.part, lines, MOST)
    context.curves(shown)
    found = dict(zip((line.number for line in shown), context.flags.of(shown), strict=True))
    matrix = Matrix(
        name="flags",
        title="Checks of gradient masking",
        header=["rule", "model", "attack", "gradient", *(name.replace("_", " ") for name in CHECKS)],
        rows=[(_names(context, line), _entries(context, line, found[line.number])) for line in shown],
        note="Raised ● with the ε of the clearest case, passed ○, or – where what the check needs was not run.",
        table=Table(
            name="flags-rows",
            title="The evidence as a table",
            columns=_COLUMNS,
            rows=[row for line in shown for row in _rows(context, line, found[line.number])],
        ),
    )
    blocks: list[Block] = [*context.turning(part, parts, len(shown), len(lines), "lines")]
    verdicts = _verdicts(context, shown)
    blocks += [verdicts] if verdicts.rows else []
    return context.finished("Flags", [*blocks, matrix, Words(title="What the checks need", sentences=_needs())])


def _verdicts(context: Context, shown: Sequence[Line]) -> Matrix:
    """What the audit says of each model of the lines that are shown."""
    models = {line.model: line for line in shown}
    rows, entries = [], []
    for line, judged in zip(models.values(), context.models.judged(models), strict=True):
        rule, name, _, _ = _names(context, line)
        for number, judgement in enumerate(judged, 1):
            verdict = judgement.verdict
            where = name if len(judged) == 1 else f"{name}, fine-tune {number} of {len(judged)}"
            raised = "; ".join(f"{made.check.id} {made.words}" for made in verdict.raised)
            state: State = "raised" if verdict.kind == "masked gradient" else "fine" if verdict.kind == "sound" else ""
            entries.append(((rule, where), [Entry(lines=[verdict.words], state=state), Entry(lines=[raised or "–"])]))
            rows.append({"rule": rule, "model": where, "verdict": verdict.kind, "words": verdict.words})
            rows[-1]["raised"] = raised
    command = f"signsym audit {context.storage}"
    return Matrix(
        name="verdicts",
        title="The audit's verdict on each model",
        header=["rule", "model", "verdict", "what raised it"],
        rows=entries,
        note="From the outcomes in this store, by all attacks on the model, whatever the filter shows. “Undecided” "
        f"names the checks that are missing; those that look at the model itself are made by: {command}",
        table=Table(name="verdicts-rows", title="The verdicts as a table", columns=_VERDICTS, rows=rows),
    )


def _needs() -> list[str]:
    needs = [f"{name.replace('_', ' ')} {need}" for name, need in CHECKS.items() if need]
    return [
        "A check that is raised says that what looks like robustness may be a weak attack; one that passes proves "
        "nothing by itself. Each is one comparison with its own 95 % interval over images.",
        "; ".join(needs) + ".",
    ]


def _names(context: Context, line: Line) -> tuple[str, str, str, str]:
    labels = context.snapshot.index.labels
    return style.label(labels.of(line, "rule")), labels.title(line), labels.of(line, "attack"), line.gradient


def _entries(context: Context, line: Line, found: Mapping[str, Sequence[Found]]) -> list[Entry]:
    search = format_view(
        context.view.turned(
            "curves",
            backbone=(line.backbone,),
            dataset=(line.dataset,),
            attack=(line.attack,),
            gradient=() if line.gradient == "none" else (line.gradient,),
        )
    )
    entries = []
    for name, need in CHECKS.items():
        made = found.get(name, ())
        raised = [each for each in made if each.finding.raised]
        if not made:
            entries.append(Entry(lines=["–"], about=need))
        elif raised:
            clearest = max(raised, key=lambda each: abs(each.finding.first - each.finding.second))
            where = "" if clearest.epsilon is None else f" ε {_epsilon(context, line, clearest.epsilon)}"
            entries.append(Entry(lines=[f"●{where}"], state="raised", search=search, about=clearest.finding.words))
        else:
            entries.append(Entry(lines=["○"], state="fine", about=made[-1].finding.words))
    return entries


def _rows(context: Context, line: Line, found: Mapping[str, Sequence[Found]]) -> list[Mapping[str, Value]]:
    rule, model, attack, gradient = _names(context, line)
    names: dict[str, Value] = {"model": model, "attack": attack, "gradient": gradient, "rule": rule}
    rows: list[Mapping[str, Value]] = []
    for name, need in CHECKS.items():
        if not found.get(name):
            rows.append({**names, "flag": name, "state": "cannot be made", "words": need})
        for each in found.get(name, ()):
            finding = each.finding
            epsilon = "" if each.epsilon is None else _epsilon(context, line, each.epsilon)
            rows.append(
                {
                    **names,
                    "flag": name,
                    "state": "raised" if finding.raised else "passed",
                    "epsilon": epsilon,
                    "first": finding.first,
                    "second": finding.second,
                    "images": finding.n or None,
                    "seeds": finding.seeds or None,
                    "words": finding.words,
                }
            )
    return rows


def _epsilon(context: Context, line: Line, epsilon: float) -> str:
    index = context.snapshot.index
    rows = index.points(line)
    row = next((int(row) for row in rows if index.epsilon[row] == epsilon), None)
    return f"{epsilon:g}" if row is None else str(index.value("epsilon_label", row))

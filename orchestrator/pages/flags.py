"""The checks of gradient masking of each line: raised, passed, or impossible for lack of data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Matrix, MatrixCell, Page, Table, Value, Words
from orchestrator.drawing.facets import portion
from orchestrator.pages.columns import IMAGES, numbers, state_of, texts
from orchestrator.pages.context import PageContext
from orchestrator.results.flags import CHECKS, IDS
from orchestrator.results.judgements import LineFinding
from orchestrator.results.labels import gradient
from orchestrator.results.line import Line

_COLUMNS = (
    *texts(model="model", attack="attack", gradient="gradient", rule="rule", flag="check", state="state", epsilon="ε"),
    *numbers(first="first number", second="second number"),
    *IMAGES,
    *texts(words="evidence"),
)
_VERDICTS = texts(rule="rule", model="model", verdict="verdict", words="in words", raised="what raised it")
#: Lines of one portion.
MOST = 40


def page(context: PageContext) -> Page:
    """A row for each line, a column for each check."""
    lines = context.attacking()
    if not lines:
        return context.nothing("Flags")
    number, portions, shown = portion(context.view.portion, lines, MOST)
    context.curves(shown)
    findings = dict(zip((line.number for line in shown), context.computed.flags.of(shown), strict=True))
    optimalities = context.computed.optimalities.of(shown)
    optimality_of = dict(zip((line.number for line in shown), optimalities, strict=True))
    matrix = Matrix(
        name="flags",
        title="Checks of gradient masking",
        header=["rule", "model", "attack", "gradient", "optimality", *map(_check, CHECKS)],
        rows=[
            (
                _names(context, line),
                [_optimality(optimality_of[line.number]), *_entries(context, line, findings[line.number])],
            )
            for line in shown
        ],
        note="Optimality: 1 where the attack breaks all that any run on the model breaks, 0 where it breaks nothing. "
        "Raised ● with the ε of the clearest case, passed ○, or – where runs that the check needs are missing.",
        table=Table(
            name="flags-rows",
            title="The evidence as a table",
            columns=_COLUMNS,
            rows=[
                row for line in shown for row in _rows(context, line, findings[line.number], optimality_of[line.number])
            ],
        ),
    )
    blocks: list[Block] = [*context.turning(number, portions, len(shown), len(lines), "lines")]
    verdicts = _verdicts(context, shown)
    blocks += [verdicts] if verdicts.rows else []
    return context.finished("Flags", [*blocks, matrix, Words(title="What the checks need", sentences=_needs())])


def _verdicts(context: PageContext, shown: Sequence[Line]) -> Matrix:
    """The audit's verdict on each model of the lines that are shown."""
    models = {line.model: line for line in shown}
    rows, entries, doubted = [], [], False
    for line, judged in zip(models.values(), context.computed.models.judged(models), strict=True):
        rule, name, _, _ = _names(context, line)
        for number, judgement in enumerate(judged, 1):
            verdict = judgement.verdict
            where = name if len(judged) == 1 else f"{name}, fine-tune {number} of {len(judged)}"
            raised = [f"{_check(found.check.flag)}: {found.words}" for found in verdict.raised]
            doubted |= verdict.may_be_the_loss
            verdict_entry = MatrixCell(lines=[verdict.words], state=state_of(verdict))
            entries.append(((rule, where), [verdict_entry, MatrixCell(lines=raised or ["–"])]))
            rows.append({"rule": rule, "model": where, "verdict": verdict.kind, "words": verdict.words})
            rows[-1]["raised"] = "; ".join(raised)
    doubts = ""
    if doubted:
        doubts = (
            ". “Or a poor loss”: only attacks without the model's gradient break more, and those along it may have "
            "raised what small logits make flat; the same command with --grid writes the attack that decides."
        )
    return Matrix(
        name="verdicts",
        title="The audit's verdict on each model",
        header=["rule", "model", "verdict", "what raised it"],
        rows=entries,
        note="From the outcomes in this store, by all attacks on the model, whatever the filter shows. “Undecided” "
        f"names the checks that are missing; those that look at the model itself are made by: {context.audit}{doubts}",
        table=Table(name="verdicts-rows", title="The verdicts as a table", columns=_VERDICTS, rows=rows),
    )


def _needs() -> list[str]:
    needs = [f"{_check(name)}: {need}" for name, need in CHECKS.items() if need]
    return [
        "A check that is raised says that what looks like robustness may be a weak attack; one that passes proves "
        "nothing. Each is one comparison with a 95 % interval over images.",
        "; ".join(needs) + ".",
    ]


def _check(flag: str) -> str:
    """A check as the page names it: its id, which verdicts have, and its name."""
    return f"{IDS[flag]} {flag.replace('_', ' ')}"


def _names(context: PageContext, line: Line) -> tuple[str, str, str, str]:
    labels = context.labels
    return style.label(labels.of(line, "rule")), labels.title(line), labels.of(line, "attack"), gradient(line)


def _entries(context: PageContext, line: Line, findings: Mapping[str, Sequence[LineFinding]]) -> list[MatrixCell]:
    search = context.address(
        "curves",
        backbone=(line.backbone,),
        dataset=(line.dataset,),
        attack=(line.attack,),
        gradient=() if line.gradient == "none" else (line.gradient,),
    )
    entries = []
    for name, need in CHECKS.items():
        line_findings = findings.get(name, ())
        raised = [line_finding for line_finding in line_findings if line_finding.finding.raised]
        if not line_findings:
            entries.append(MatrixCell(lines=["–"], about=need))
        elif raised:
            clearest = max(
                raised, key=lambda line_finding: abs(line_finding.finding.first - line_finding.finding.second)
            )
            where = (
                "" if clearest.epsilon is None else f" ε\N{NO-BREAK SPACE}{_epsilon(context, line, clearest.epsilon)}"
            )
            entries.append(MatrixCell(lines=[f"●{where}"], state="raised", search=search, about=clearest.finding.words))
        else:
            entries.append(MatrixCell(lines=["○"], state="fine", about=line_findings[-1].finding.words))
    return entries


def _optimality(value: float | None) -> MatrixCell:
    if value is None:
        return MatrixCell(lines=["–"], about=_NO_OPTIMALITY)
    return MatrixCell(lines=[f"{value:.2f}"], about=_OPTIMALITY)


_OPTIMALITY = "share of the area between the clean score and the worst case over all runs that this attack takes away"
_NO_OPTIMALITY = "needs a clean score, an ε above 0 and below 0.5, and an image that any run on the model breaks"


def _rows(
    context: PageContext, line: Line, findings: Mapping[str, Sequence[LineFinding]], optimality: float | None
) -> list[Mapping[str, Value]]:
    rule, model, attack, gradient = _names(context, line)
    names: dict[str, Value] = {"model": model, "attack": attack, "gradient": gradient, "rule": rule}
    measured = {"flag": "optimality", "state": "not possible", "words": _NO_OPTIMALITY}
    if optimality is not None:
        measured = {"flag": "optimality", "state": "measured", "words": _OPTIMALITY}
    rows: list[Mapping[str, Value]] = [{**names, **measured, "first": optimality}]
    for name, need in CHECKS.items():
        if not findings.get(name):
            rows.append({**names, "flag": name, "state": "not possible", "words": need})
        for line_finding in findings.get(name, ()):
            finding = line_finding.finding
            epsilon = "" if line_finding.epsilon is None else _epsilon(context, line, line_finding.epsilon)
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


def _epsilon(context: PageContext, line: Line, epsilon: float) -> str:
    index = context.index
    rows = index.points(line)
    row = next((int(row) for row in rows if index.epsilon[row] == epsilon), None)
    return f"{epsilon:g}" if row is None else str(index.value("epsilon_label", row))

"""Whether each rule is more robust than BP: one answer for each, in the worst case over attacks at one ε.

The Gap page and the first page of the report show the same table.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Matrix, MatrixCell, Table, Value, Words
from orchestrator.pages.columns import (
    GAP,
    HOLM,
    IMAGES,
    RUNS,
    ends_of,
    excludes,
    few_sentence,
    gap_of,
    in_short,
    percents,
    state_of,
    texts,
    with_ends,
    worst_of,
)
from orchestrator.pages.context import PageContext
from orchestrator.pages.worst import models_by_place, over, report_refused
from orchestrator.results.line import Line
from orchestrator.results.worst_lines import WorstLine, WorstPoint
from signsym_core.auditing.verdict import Verdict
from signsym_core.statistics.intervals import Interval

#: Where both scores are at most this, there is nothing left to compare.
FLOOR = 0.02
#: Rows of the table, beyond which no other figure is begun.
MOST = 24
MORE, LESS, SAME, NOTHING = "more robust", "less robust", "no difference shown", "nothing left to compare"
UNKNOWN, APART = "not known: run these attacks with gradient: exact", "not compared: other attacks than on BP"
NONE_SHARED = "not compared: no seed or image in common with BP"
_MASKING = "more along its own feedback: masking"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """The answer on one rule: its worst case beside BP's."""

    worst_line: WorstLine
    worst: WorstPoint
    verdict: Verdict | None
    #: "" for BP itself.
    word: str
    #: Whether the rule is shown to be more robust along its own feedback, and not in the worst case.
    masked: bool

    @property
    def rule(self) -> str:
        return style.label(self.worst_line.curve.rule_label)


def blocks(context: PageContext, lines: Sequence[Line], epsilon: float, label: str, title: str) -> list[Block]:
    """The answers on the models of `lines` at an ε, in a sentence or two and as a table; none without BP."""
    answers, left_out = _answers(context, lines, epsilon)
    if not any(answer.word for answer in answers):
        return []
    return [
        Words(title=title, sentences=_summary(context, answers), tone="finding"),
        _matrix(context, answers, label, left_out),
    ]


def decided(worst: WorstPoint, bp: WorstPoint) -> tuple[str, bool]:
    """The answer in words, and whether the model's own feedback alone says that it is more robust.

    A gap counts where it excludes zero after Holm's correction, and the worst case is conclusive.
    """
    gap, along = worst.point.over_bp, worst.feedback
    higher = gap is not None and worst.clear and gap.value > 0
    masked = along is not None and worst.feedback_clear and along.value > 0 and not higher
    if not worst.conclusive:
        return UNKNOWN, False
    if gap is None:
        return APART if worst.unmatched else NONE_SHARED, masked
    if worst.clear:
        word = MORE if higher else LESS
    else:
        word = NOTHING if max(worst.point.score.value, bp.point.score.value) <= FLOOR else SAME
    return word + ", for this one seed" * (gap.seeds == 1), masked


def _answers(context: PageContext, lines: Sequence[Line], epsilon: float) -> tuple[list[Answer], int]:
    """The answers, BP first in each figure and norm, and the number of figures and norms that are left out."""
    models = models_by_place(context, lines)
    answers: list[Answer] = []
    for position, ((figure, norm), names) in enumerate(models.items()):
        if len(answers) >= MOST:
            return answers, len(models) - position
        family = context.computed.worst_cases.of([figure], context.view.attack)
        report_refused(context, names)
        here = [(line, line.points[epsilon]) for line in family if line.curve.norm == norm and epsilon in line.points]
        bp = next((pair for pair in here if pair[0].line.rule == "bp"), None)
        if bp is None:
            continue
        shown = [bp, *(pair for pair in here if pair[0].line.model in names and pair[0] is not bp[0])]
        judged = context.computed.models.judged([worst_line.line.model for worst_line, _ in shown])
        for (worst_line, worst), judgements in zip(shown, judged, strict=True):
            word, masked = ("", False) if worst is bp[1] else decided(worst, bp[1])
            verdict = judgements[0].verdict if judgements else None
            answers.append(Answer(worst_line=worst_line, worst=worst, verdict=verdict, word=word, masked=masked))
    return answers, 0


def _summary(context: PageContext, answers: Sequence[Answer]) -> list[str]:
    compared = [answer for answer in answers if answer.word]
    several = len({(answer.worst_line.line.figure, answer.worst_line.curve.norm) for answer in compared}) > 1
    by_word: dict[str, list[Answer]] = {}
    for answer in compared:
        by_word.setdefault(_beside_bp(answer.word), []).append(answer)
    clauses = [f"{word}: {_named(of_word, compared, several)}" for word, of_word in by_word.items()]
    sentences = [
        f"In the worst case over {over(context)}, {'; '.join(clauses)} (95 % intervals, after Holm's correction)."
    ]
    masked = [answer for answer in compared if answer.masked]
    if masked:
        names = _named(masked, compared, several)
        sentences.append(f"More robust than BP along their own feedback alone, which is gradient masking: {names}.")
    return sentences


def _beside_bp(word: str) -> str:
    return word.replace("robust", "robust than BP").replace("difference", "difference to BP")


def _named(some: Sequence[Answer], compared: Sequence[Answer], several: bool) -> str:
    if several:
        return f"{len(some)} of {len(compared)} models"
    return ", ".join(answer.rule for answer in some)


_COLUMNS = (
    *texts(model="model", rule="rule", epsilon="ε", norm="norm"),
    RUNS[0],
    *percents(worst="worst case", worst_lo="from", worst_hi="to"),
    *GAP,
    *HOLM,
    *with_ends("feedback", "own-feedback gap", "points"),
    *texts(feedback_clear="own-feedback gap after Holm", answer="more robust than BP?", verdict="audit"),
    *IMAGES,
    *RUNS[1:],
)


def _matrix(context: PageContext, answers: Sequence[Answer], label: str, left_out: int) -> Matrix:
    places = {_place(answer) for answer in answers}
    names = ["model", "rule"] if len(places) > 1 else ["rule"]
    note = "95 % intervals, uncorrected. ●: the gap excludes zero after Holm's correction over the panel's rules and "
    note += "ε; ○: it does not. A gap is of the worst cases of rule and BP over the same attacks, paired by image."
    if len(places) == 1:
        note = f"{_place(answers[0])}. {note}"
    scores = [answer.worst.point.score for answer in answers]
    note += few_sentence(scores)
    if left_out:
        note += f" {left_out:,} more are not shown; narrow the filter."
    header = ["strongest run", "worst case", "gap to BP", "own-feedback gap", "more robust than BP?", "audit"]
    return Matrix(
        name="answers",
        title=f"Worst case over attacks at ε = {label}, by rule",
        header=[*names, *header],
        rows=[([_place(answer), answer.rule][-len(names) :], _entries(context, answer)) for answer in answers],
        note=note,
        table=Table(name="answers-rows", columns=_COLUMNS, rows=[_row(answer) for answer in answers]),
    )


def _place(answer: Answer) -> str:
    curve = answer.worst_line.curve
    return curve.title if curve.norm == "linf" else f"{curve.title}, {style.norm(curve.norm)}"


def _entries(context: PageContext, answer: Answer) -> list[MatrixCell]:
    worst, line = answer.worst, answer.worst.lines[0]
    here = {"backbone": (line.backbone,), "dataset": (line.dataset,), "gradient": (), "rule": ()}
    of_attack, of_all = (
        context.address("curves", **here, **changes) for changes in ({"attack": (line.attack,)}, {"over": "worst"})
    )
    score = worst.point.score
    word = answer.word or "–"
    verdict = answer.verdict
    return [
        MatrixCell(lines=[worst.point.runs[0]], search=of_attack, about=", ".join(worst.point.runs)),
        MatrixCell(lines=[style.percent(score), style.basis(score)], search=of_all, about=", ".join(worst.point.runs)),
        MatrixCell(lines=_points(worst.point.over_bp, worst.clear, score), about=_lacking(worst)),
        MatrixCell(lines=_points(worst.feedback, worst.feedback_clear, score)),
        MatrixCell(lines=[word, *([_MASKING] if answer.masked else [])], about=_lacking(worst)),
        MatrixCell(lines=["not judged"])
        if verdict is None
        else MatrixCell(lines=_verdict(answer, verdict), state=state_of(verdict), about=verdict.words),
    ]


def _points(gap: Interval | None, clear: bool, score: Interval) -> list[str]:
    """A gap, and below it its own basis."""
    if gap is None:
        return ["–"]
    return list(filter(None, [f"{style.points(gap)} {'●' if clear else '○'}", style.own_basis(gap, score)]))


def _lacking(worst: WorstPoint) -> str:
    return f"run on one of the two alone: {', '.join(worst.unmatched)}" if worst.unmatched else ""


def _verdict(answer: Answer, verdict: Verdict) -> list[str]:
    return in_short(verdict, {epsilon: worst.point.label for epsilon, worst in answer.worst_line.points.items()})


def _row(answer: Answer) -> Mapping[str, Value]:
    worst, point, curve = answer.worst, answer.worst.point, answer.worst_line.curve
    row = worst_of(curve, worst) | {"model": curve.title, "answer": answer.word}
    row |= {"verdict": "" if answer.verdict is None else answer.verdict.words}
    row |= gap_of(point.over_bp) | ends_of("worst", point.score) | ends_of("feedback", worst.feedback)
    for name, gap, clear in (
        ("clear", point.over_bp, worst.clear),
        ("feedback_clear", worst.feedback, worst.feedback_clear),
    ):
        row[name] = "" if gap is None else excludes(clear)
    return row | {"family": answer.worst_line.family, "images": point.score.n, "seeds": point.score.seeds}

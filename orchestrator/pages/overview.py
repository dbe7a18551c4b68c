"""A store on one screen: for each rule its clean score, its scores under the strongest attack along its own feedback
and along the exact gradient, and the audit's verdict."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Block, Figure, Matrix, MatrixCell, Table, Value
from orchestrator.drawing.model_figure import ModelRow, model_figure
from orchestrator.pages.columns import IMAGES, ends_of, in_short, state_of, texts, with_ends
from orchestrator.pages.context import PageContext
from orchestrator.results.judgements import AttackScore, ModelEvidence, score_of
from orchestrator.results.labels import score_name
from orchestrator.results.members import SPIKING
from signsym_core.auditing.evidence import Evidence
from signsym_core.auditing.masking import GREY

#: Models of one screen at most.
MOST = 12


def blocks(context: PageContext) -> list[Block]:
    """The figure and the table of the models that the filters choose; none where no model was attacked."""
    names = list(dict.fromkeys(line.model for line in context.lines()))
    known = list(context.computed.models.known(names[:MOST]))
    epsilon = common_epsilon([model.evidence for model in known])
    if epsilon is None:
        return []
    label = next(model.labels[epsilon] for model in known if epsilon in model.labels)
    rows = [_row(context, model, epsilon) for model in known]
    several = len({row.place for row in rows}) > 1
    place = "" if several else f"{rows[0].place}: "
    left_out = f" The first {MOST} of {len(names)} models; Flags has all." if len(names) > MOST else ""
    score = style.scores(row.score_name for row in rows)
    picture = Figure(
        name="overview",
        title=f"{place}{score} at ε = {label}, under the strongest attack along each gradient",
        described=_described(rows, label),
        figure=model_figure(rows, several),
        table=_table(rows, label),
        shows_table=False,
    )
    return [picture, _matrix(rows, label, several, left_out, context.audit)]


def common_epsilon(models: Iterable[Evidence]) -> float | None:
    """The ε below 0.5 at which the two gradients differ most over all models; where none does, the middle one.

    None where no model was attacked along its own feedback or the exact gradient.
    """
    models = list(models)
    epsilons = sorted({run.epsilon for known in models for run in known.of(below=GREY) if run.gradient in _BOTH})
    if not epsilons:
        return None
    middle = epsilons[(len(epsilons) - 1) // 2]

    def apart(epsilon: float) -> float:
        pairs = [[known.strongest(gradient, epsilon) for gradient in _BOTH] for known in models]
        return sum(
            feedback.score - exact.score for feedback, exact in pairs if feedback is not None and exact is not None
        )

    return max(epsilons, key=lambda epsilon: (round(apart(epsilon), 6), epsilon == middle))


_BOTH = ("feedback", "exact")


def _row(context: PageContext, model: ModelEvidence, epsilon: float) -> ModelRow:
    labels = context.labels
    line = next(iter(model.lines.values()))
    verdict = context.computed.models.judgement(model).verdict
    return ModelRow(
        rule=line.rule,
        rule_label=style.label(labels.of(line, "rule")),
        place=labels.title(line),
        score_name=score_name(line),
        clean=score_of(model.evidence.clean),
        feedback=score_of(model.evidence.strongest("feedback", epsilon)),
        exact=score_of(model.evidence.strongest("exact", epsilon)),
        verdict=verdict,
        words=", ".join(in_short(verdict, model.labels)),
        spikes=line.backbone in SPIKING,
    )


_COLUMNS = (
    *texts(model="model", rule="rule", epsilon="ε"),
    *with_ends("clean", "clean"),
    *with_ends("feedback", "own feedback"),
    *with_ends("exact", "exact gradient"),
    *texts(feedback_attack="strongest along own feedback", exact_attack="strongest along the exact gradient"),
    *IMAGES,
    *texts(verdict="verdict", words="verdict in words"),
)


def _table(rows: Sequence[ModelRow], epsilon: str) -> Table:
    written: list[Mapping[str, Value]] = []
    for row in rows:
        values: dict[str, Value] = {"model": row.place, "rule": row.rule_label, "epsilon": epsilon}
        for kind, score in (("clean", row.clean), ("feedback", row.feedback), ("exact", row.exact)):
            if score is not None:
                values |= ends_of(kind, score.score) | {f"{kind}_attack": score.run[0]}
        smallest = min((s.score for s in (row.feedback, row.exact) if s is not None), key=lambda s: s.n, default=None)
        values |= {} if smallest is None else {"images": smallest.n, "seeds": smallest.seeds}
        written.append(values | {"verdict": row.verdict.kind, "words": row.verdict.words})
    return Table(name="overview-rows", columns=_COLUMNS, rows=written)


def _matrix(rows: Sequence[ModelRow], epsilon: str, several: bool, left_out: str, audit: str) -> Matrix:
    names = ("model", "rule") if several else ("rule",)
    entries = []
    for row in rows:
        left = (row.place, row.rule_label) if several else (row.rule_label,)
        numbers = [MatrixCell(lines=[_words(score)]) for score in (row.clean, row.feedback)]
        numbers.append(MatrixCell(lines=[_words(row.exact), *(["of the surrogate"] if row.spikes else [])]))
        verdict = MatrixCell(lines=[row.words], state=state_of(row.verdict), about=row.verdict.words)
        entries.append((left, [*numbers, verdict]))
    scores = [score.score for row in rows for score in (row.feedback, row.exact) if score is not None]
    fewest = min(scores, key=lambda score: (score.seeds, score.n))
    codes = " Codes such as T1 are checks of that page." if any(row.verdict.missing for row in rows) else ""
    rests = f"at least {style.counted(fewest.seeds, 'seed')} × {min(score.n for score in scores):,} images"
    return Matrix(
        name="overview",
        title="Is it robustness?",
        header=[*names, "clean", "own feedback", "exact gradient", "verdict"],
        rows=entries,
        note=f"At ε = {epsilon}, with 95 % intervals over seeds and images: {rests}.{left_out} The evidence behind a "
        f"verdict: the page Flags, and {audit}.{codes}",
        table=_table(rows, epsilon),
    )


def _words(score: AttackScore | None) -> str:
    return "not run" if score is None else style.percent(score.score)


def _described(rows: Sequence[ModelRow], epsilon: str) -> str:
    clauses = [
        f"{row.rule_label} keeps {_words(row.feedback)} under its own feedback and {_words(row.exact)} under "
        f"{style.gradient('exact (surrogate)' if row.spikes else 'exact')}"
        for row in rows
    ]
    return f"At epsilon {epsilon}: {'; '.join(clauses)}. The table below has the numbers."

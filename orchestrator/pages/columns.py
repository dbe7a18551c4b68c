"""The columns that the tables of several pages have, with their values, and the audit's verdict as they print it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Column, Kind, State, Value
from orchestrator.results.curve import Curve, few
from orchestrator.results.worst_lines import WorstPoint
from signsym_core.auditing.verdict import Verdict
from signsym_core.statistics.intervals import Interval
from signsym_core.statistics.ratios import Ratio


def _columns(kind: Kind, labels: Mapping[str, str]) -> tuple[Column, ...]:
    return tuple(Column(key=key, label=label, kind=kind) for key, label in labels.items())


def texts(**labels: str) -> tuple[Column, ...]:
    """Columns of text, their labels by their keys."""
    return _columns("text", labels)


def numbers(**labels: str) -> tuple[Column, ...]:
    """Columns of plain numbers, likewise."""
    return _columns("number", labels)


def percents(**labels: str) -> tuple[Column, ...]:
    """Columns of shares, printed in percent, likewise."""
    return _columns("percent", labels)


def points(**labels: str) -> tuple[Column, ...]:
    """Columns of differences of shares, printed in percentage points, likewise."""
    return _columns("points", labels)


def filled(columns: Sequence[Column], rows: Sequence[Mapping[str, Value]]) -> list[Column]:
    """The columns that some row has a value for."""
    return [column for column in columns if any(row[column.key] not in (None, "") for row in rows)]


def with_ends(
    key: str, label: str, kind: Kind = "percent", words: Sequence[str] = (" from", " to")
) -> tuple[Column, ...]:
    """The columns of a number and of the ends of its interval: see `ends_of`."""
    return _columns(kind, {key: label, f"{key}_lo": f"{label}{words[0]}", f"{key}_hi": f"{label}{words[1]}"})


#: The model that a row is about, without its seed.
MODEL = texts(backbone="backbone", dataset="data set", rule="rule")
#: The point that a row is about.
POINT = texts(backbone="backbone", dataset="data set", attack="attack", gradient="gradient", rule="rule", epsilon="ε")
#: The worst case that a row is about, and the runs that it is over.
WORST = (*MODEL, *texts(norm="norm", epsilon="ε"))
RUNS = texts(strongest="strongest run", runs="runs, the strongest first", unmatched="without counterpart")
#: The stores that the results of a row are from, where there are several.
STORE = Column(key="store", label="store")
#: What an interval rests on.
IMAGES = numbers(images="images", seeds="seeds")
BASIS = (*texts(method="interval"), *IMAGES)
#: A score with its interval.
SCORE = (*percents(value="score", lo="from", hi="to"), *BASIS)
#: A paired difference to BP with its interval.
GAP = (
    *points(gap="gap to BP", gap_lo="gap from", gap_hi="gap to"),
    # The seeds and images that both sides have: the score beside it may rest on more.
    *numbers(gap_images="gap images", gap_seeds="gap seeds"),
)
#: Whether a difference excludes zero, and over how many comparisons that is corrected.
HOLM = (*texts(clear="after Holm"), *numbers(family="comparisons"))


def model_of(curve: Curve) -> dict[str, Value]:
    """The values of MODEL."""
    rule = style.label(curve.rule_label)
    return {"backbone": curve.backbone_label, "dataset": curve.dataset_label, "rule": rule}


def point_of(curve: Curve, epsilon: str) -> dict[str, Value]:
    """The values of POINT, for a point of a curve."""
    return model_of(curve) | {"attack": curve.attack_label, "gradient": curve.gradient, "epsilon": epsilon}


def worst_of(curve: Curve, worst: WorstPoint) -> dict[str, Value]:
    """The values of WORST and RUNS, and the cell."""
    point, runs = worst.point, worst.point.runs
    names = model_of(curve) | {"norm": style.norm(curve.norm), "epsilon": point.label, "cell": point.cell}
    return names | {"strongest": runs[0], "runs": ", ".join(runs), "unmatched": ", ".join(worst.unmatched)}


def ends_of(key: str, number: Interval | Ratio | None) -> dict[str, Value]:
    """The values of `with_ends`; none where there is no number."""
    return {} if number is None else {key: number.value, f"{key}_lo": number.lo, f"{key}_hi": number.hi}


def score_of(score: Interval, value: str = "value") -> dict[str, Value]:
    """The values of SCORE; `value` is the key of the score itself."""
    numbers: dict[str, Value] = {value: score.value, "lo": score.lo, "hi": score.hi, "method": score.method}
    return numbers | {"images": score.n, "seeds": score.seeds}


def gap_of(gap: Interval | None) -> dict[str, Value]:
    """The values of GAP; none where there is no gap."""
    return {} if gap is None else ends_of("gap", gap) | {"gap_images": gap.n, "gap_seeds": gap.seeds}


def excludes(clear: bool | None) -> str:
    """Whether a difference excludes zero, in words."""
    return "excludes zero" if clear else "does not exclude zero"


def described(title: str, curves: Sequence[Curve]) -> str:
    """A figure of curves in a sentence, for those who do not see it."""
    rules = ", ".join(dict.fromkeys(style.label(curve.rule_label) for curve in curves))
    places = ", ".join(dict.fromkeys(curve.title for curve in curves))
    return f"{title}: {rules} on {places}. The table below has the numbers."


def few_sentence(scores: Iterable[Interval]) -> str:
    """What the note of a table adds where some score rests on few images or seeds, with a space before it; else ""."""
    if few(scores):
        return " Some of these rest on fewer than 1,000 images or 3 seeds: a demonstration, not evidence."
    return ""


_STATES: Mapping[str, State] = {"masked gradient": "raised", "sound": "fine"}


def in_short(verdict: Verdict, epsilons: Mapping[float, str]) -> list[str]:
    """The verdict, and by how much a masked gradient overstated the score, at which ε as its grid wrote it."""
    if verdict.overstated is None or verdict.epsilon is None:
        return [verdict.words]
    where = epsilons.get(verdict.epsilon, f"{verdict.epsilon:.4g}")
    doubt = ["or a poor loss"] if verdict.may_be_the_loss else []
    return [verdict.kind, f"by {100 * verdict.overstated:.1f} points at ε = {where}", *doubt]


def state_of(verdict: Verdict) -> State:
    """How a table shows it."""
    return _STATES.get(verdict.kind, "")

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


def with_ends(key: str, label: str, kind: Kind = "percent", words: Sequence[str] = (" from", " to")) -> list[Column]:
    """The columns of a number and of the ends of its interval: see `ends_of`."""
    ends = ((key, label), (f"{key}_lo", f"{label}{words[0]}"), (f"{key}_hi", f"{label}{words[1]}"))
    return [Column(key=end, label=text, kind=kind) for end, text in ends]


#: The model that a row is about, without its seed.
MODEL = (
    Column(key="backbone", label="backbone"),
    Column(key="dataset", label="data set"),
    Column(key="rule", label="rule"),
)
#: The point that a row is about.
POINT = (
    Column(key="backbone", label="backbone"),
    Column(key="dataset", label="data set"),
    Column(key="attack", label="attack"),
    Column(key="gradient", label="gradient"),
    Column(key="rule", label="rule"),
    Column(key="epsilon", label="ε"),
)
#: The worst case that a row is about, and the runs that it is over.
WORST = (*MODEL, Column(key="norm", label="norm"), Column(key="epsilon", label="ε"))
RUNS = (
    Column(key="strongest", label="strongest run"),
    Column(key="runs", label="runs, the strongest first"),
    Column(key="unmatched", label="without counterpart"),
)
#: The stores that the results of a row are from, where there are several.
STORE = Column(key="store", label="store")
#: What an interval rests on.
IMAGES = (Column(key="images", label="images", kind="number"), Column(key="seeds", label="seeds", kind="number"))
BASIS = (Column(key="method", label="interval"), *IMAGES)
#: A score with its interval.
SCORE = (
    Column(key="value", label="score", kind="percent"),
    Column(key="lo", label="from", kind="percent"),
    Column(key="hi", label="to", kind="percent"),
    *BASIS,
)
#: A paired difference to BP with its interval.
GAP = (
    Column(key="gap", label="gap to BP", kind="points"),
    Column(key="gap_lo", label="gap from", kind="points"),
    Column(key="gap_hi", label="gap to", kind="points"),
    # The seeds and images that both sides have: the score beside it may rest on more.
    Column(key="gap_images", label="gap images", kind="number"),
    Column(key="gap_seeds", label="gap seeds", kind="number"),
)


def _model(curve: Curve) -> dict[str, Value]:
    """The values of MODEL."""
    rule = style.label(curve.rule_label)
    return {"backbone": curve.backbone_label, "dataset": curve.dataset_label, "rule": rule}


def point_of(curve: Curve, epsilon: str) -> dict[str, Value]:
    """The values of POINT, for a point of a curve."""
    return _model(curve) | {"attack": curve.attack_label, "gradient": curve.gradient, "epsilon": epsilon}


def worst_of(curve: Curve, worst: WorstPoint) -> dict[str, Value]:
    """The values of WORST and RUNS, and the cell."""
    point, runs = worst.point, worst.point.runs
    names = _model(curve) | {"norm": style.norm(curve.norm), "epsilon": point.label, "cell": point.cell}
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
    return [verdict.kind, f"by {100 * verdict.overstated:.1f} points at ε = {where}"]


def state_of(verdict: Verdict) -> State:
    """How a table shows it."""
    return _STATES.get(verdict.kind, "")

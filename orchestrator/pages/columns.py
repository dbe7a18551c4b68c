"""The columns that the tables of several pages have, with their values."""

from __future__ import annotations

from collections.abc import Iterable

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Column, Value
from orchestrator.results.curve import Curve, few
from signsym_core.statistics.intervals import Interval

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
#: The stores that the results of a row are from, where there are several.
STORE = Column(key="store", label="store")
#: What an interval rests on.
BASIS = (
    Column(key="method", label="interval"),
    Column(key="images", label="images", kind="number"),
    Column(key="seeds", label="seeds", kind="number"),
)
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


def point_of(curve: Curve, epsilon: str) -> dict[str, Value]:
    """The values of POINT, for a point of a curve."""
    names: dict[str, Value] = {"backbone": curve.backbone_label, "dataset": curve.dataset_label}
    names |= {"attack": curve.attack_label, "gradient": curve.gradient, "rule": style.label(curve.rule_label)}
    return names | {"epsilon": epsilon}


def score_of(score: Interval, value: str = "value") -> dict[str, Value]:
    """The values of SCORE; `value` is the key of the score itself."""
    numbers: dict[str, Value] = {value: score.value, "lo": score.lo, "hi": score.hi, "method": score.method}
    return numbers | {"images": score.n, "seeds": score.seeds}


def gap_of(gap: Interval | None) -> dict[str, Value]:
    """The values of GAP; none where there is no gap."""
    if gap is None:
        return {}
    numbers: dict[str, Value] = {"gap": gap.value, "gap_lo": gap.lo, "gap_hi": gap.hi}
    return numbers | {"gap_images": gap.n, "gap_seeds": gap.seeds}


def few_sentence(scores: Iterable[Interval]) -> str:
    """What the note of a table adds where some score rests on few images or seeds, with a space before it; else ""."""
    if few(scores):
        return " Some of these rest on fewer than 1,000 images or 3 seeds: a demonstration, not evidence."
    return ""

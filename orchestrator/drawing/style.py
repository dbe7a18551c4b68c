"""The style of rules in all figures, and the format of numbers: the same on screen, on paper and in tooltips."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from orchestrator.jobs.surrogates import SurrogateName, names_surrogate, surrogate_of
from orchestrator.results import members
from orchestrator.results.curve import Curve, Point
from orchestrator.results.labels import mapping, words
from signsym_core.statistics.intervals import Interval

#: Used by every graph: nothing leaves the page, and pictures are saved as SVG.
GRAPH_CONFIG: dict[str, Any] = {
    "displaylogo": False,
    "showSendToCloud": False,
    "responsive": True,
    "toImageButtonOptions": {"format": "svg"},
    "showTips": False,
    "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"],
}

# Okabe and Ito's colours, which colour-blind people tell apart, as far as they have a contrast of 3:1 on white and on
# the dark page; dash and marker say the same again. Black is drawn white on the dark page (assets/explorer.css).
_STYLES = {
    "bp": ("#000000", "solid", "circle"),
    "fa": ("#767676", "dot", "x"),
    "usf": ("#0072B2", "dash", "square"),
    "frsf": ("#D55E00", "dashdot", "diamond"),
    "brsf": ("#009E73", "longdash", "triangle-up"),
}
_FURTHER = (("#B5568F", "dash", "star"), ("#8F7000", "dot", "hexagon"), ("#3A8FC4", "solid", "cross"))
#: Ring around a point that a check of masking has raised.
RING = "#D6246E"
#: The colour of axes, reference lines and their words in both schemes.
REFERENCE = "#808080"
#: Colour of a panel's title where it has few images or seeds.
WARNING = "#B35900"
#: The colours of the page in the light and the dark scheme.
PAGE = {"light": "#ffffff", "dark": "#1b1c1f"}
FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, sans-serif"

#: Runs of a worst case that the text over its marker names, beside the strongest.
NAMED = 6

GRADIENT_WORDS = {
    "feedback": "its own feedback",
    "exact": "the exact gradient",
    "exact (surrogate)": "the gradient of the spikes' surrogate",
    "mixed": "the mean of feedback and exact gradient",
    "transfer": "the BP twin's gradient",
    "eot": "feedback averaged over draws of B",
    "hybrid": "the better of feedback and transfer",
    "none": "no gradient",
}
_NORMS = {"linf": "L∞", "l2": "L2"}


def style(rule: str) -> tuple[str, str, str]:
    """Colour, dash and marker of a rule, the same in every figure."""
    return _STYLES.get(rule) or _FURTHER[sum(rule.encode()) % len(_FURTHER)]


def label(name: str) -> str:
    """A rule as figures print it: "frSF" for "frsf", parameters kept."""
    base, bracket, rest = name.partition("(")
    return members.label(base) + bracket + rest


def gradient(name: str) -> str:
    """A source of gradient in words; "exact (surrogate)" is the exact gradient of a network of spikes."""
    if names_surrogate(name):
        named = surrogate_of(name)
        return f"the exact gradient of {surrogate(named)}{' of another seed' * named.other_seed}"
    return GRADIENT_WORDS.get(name, name)


def surrogate(named: SurrogateName) -> str:
    """The rule of a surrogate with its parameters: "uSF(scale=xavier)"."""
    inner = ", ".join(f"{key}={words(value)}" for key, value in mapping(named.parameters).items())
    return f"{label(named.rule)}({inner})" if inner else label(named.rule)


def heading(text: str) -> str:
    """A text with a capital first letter, unless the second is one: "Robust accuracy", "mAP@1000"."""
    return text if text[1:2].isupper() else text[:1].upper() + text[1:]


def scores(names: Iterable[str]) -> str:
    """The names of the scores of one figure, each once: "mAP@10 / mAP@50"."""
    return " / ".join(dict.fromkeys(names))


def norm(name: str) -> str:
    """A norm's sign: "L∞"."""
    return _NORMS.get(name, name)


def percent(score: Interval) -> str:
    """An interval in words: "61.2 % [59.8, 62.5]"."""
    return f"{100 * score.value:.1f} % [{100 * score.lo:.1f}, {100 * score.hi:.1f}]"


def points(difference: Interval) -> str:
    """A gap in percentage points: "+22.4 [+20.9, +23.9]"."""
    return f"{100 * difference.value:+.1f} [{100 * difference.lo:+.1f}, {100 * difference.hi:+.1f}]"


def in_table(score: Interval) -> list[str]:
    """An interval as a table has it, in percent, and below it the basis: "61.2 [59.8, 62.5]"."""
    return [f"{100 * score.value:.1f} [{100 * score.lo:.1f}, {100 * score.hi:.1f}]", basis(score)]


def basis(score: Interval) -> str:
    """The images of each seed and the number of seeds: "n = 5,000, 3 seeds"."""
    return f"n = {score.n:,}, {counted(score.seeds, 'seed')}"


def bases(scores: Sequence[Interval]) -> str:
    """The images and seeds of several numbers, from the least to the most: "n = 60 to 150, 2 to 3 seeds"."""
    (n, most_n), (seeds, most) = (
        (min(counts), max(counts)) for counts in ([s.n for s in scores], [s.seeds for s in scores])
    )
    images = f"{n:,} to {most_n:,}" if n < most_n else f"{n:,}"
    return f"n = {images}, {f'{seeds:,} to ' * (seeds < most)}{counted(most, 'seed')}"


def own_basis(gap: Interval, score: Interval) -> str:
    """What a difference rests on, where that is not what the score beside it rests on; else ""."""
    return "" if (gap.n, gap.seeds) == (score.n, score.seeds) else basis(gap)


def beside(gap: Interval, score: Interval) -> str:
    """A difference in points, with its own basis."""
    own = own_basis(gap, score)
    return f"{points(gap)} points{own and f', of {own}'}"


def rests_on(score: Interval) -> str:
    """The number of outcomes behind a number: "15,000 (3 seeds × 5,000)"."""
    return f"{score.n * score.seeds:,} ({counted(score.seeds, 'seed')} × {score.n:,})"


def counted(number: int, thing: str) -> str:
    """ "1 seed", "3 seeds"."""
    return f"{number:,} {thing}{'s' * (number != 1)}"


def epsilon(point: Point) -> str:
    """An epsilon as axes print it; 0 is the clean image."""
    return "clean" if point.epsilon == 0 else point.label


def hover(curve: Curve, point: Point, flags: Sequence[str] = ()) -> str:
    """The text over a marker: score, number of outcomes, gap to BP, and flags (see `hover_frame`)."""
    score = point.score
    kept = f"{round(score.value * score.n * score.seeds):,} of " if curve.score_name.endswith("accuracy") else "of "
    text = f"{escape(point.label)}: {percent(score)}<br>{kept}{rests_on(score)}, {method(score)}"
    gap = "" if point.over_bp is None else f"gap to BP {beside(point.over_bp, score)}"
    if point.runs:
        fewer = "<br>hollow: other ε have more runs" * curve.thin(point)
        return f"{text}<br>{gap}{'<br>' * bool(gap)}{_runs(point.runs)}{fewer}"
    return f"{text}<br>{gap}{', ' * bool(gap)}flags: {', '.join(flags) or 'none'}"


def _runs(runs: Sequence[str]) -> str:
    """The runs that a worst case is over, in two lines."""
    strongest, *others = map(escape, runs)
    if not others:
        return f"one run: {strongest}"
    more = f" and {len(others) - NAMED} more" if len(others) > NAMED else ""
    return (
        f"worst case over {counted(len(runs), 'run')}, the strongest {strongest};<br>{', '.join(others[:NAMED])}{more}"
    )


def hover_frame(curve: Curve) -> str:
    """The frame of the texts over a line's markers: its rule, and the unit of its epsilons."""
    rule = escape(label(curve.rule_label))
    return f"<b>{rule}</b>, ε %{{hovertext}}<br>ε: {norm(curve.norm)}, [0, 1] pixels<extra></extra>"


def method(score: Interval) -> str:
    """The method of an interval, in words. One over the images of one seed says nothing about other seeds."""
    images_only = ", one seed: images only" if score.seeds == 1 else ""
    return score.method + images_only


def escape(text: str) -> str:
    """A name of the store, escaped for plotly's subset of HTML."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")

"""Results in sentences that claim no more than their intervals allow."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from weakref import WeakKeyDictionary

import numpy as np

from orchestrator.drawing import style
from orchestrator.drawing.blocks import Words
from orchestrator.results.curve import FEW_IMAGES, FEW_SEEDS
from orchestrator.results.epsilons import matching
from orchestrator.results.gaps import GapLine, GapPoint, gap_lines
from orchestrator.results.index import Index
from orchestrator.results.line import RULE, Line
from orchestrator.results.query import Query

#: Where both scores are at most this, there is nothing left to compare.
FLOOR = 0.02
#: Sentences of one block.
MOST = 12
_DEMONSTRATION = "Some of these rest on fewer than 1,000 images or 3 seeds: a demonstration, not evidence."
_MASKING = "; it looks more robust only where the attack follows the model's own feedback, which is masking"

#: A gap at one epsilon, with its line.
_Gap = tuple[GapLine, GapPoint]


def at_epsilon(query: Query, lines: Sequence[Line], chosen: str) -> tuple[float, str, str]:
    """The epsilon that a page about `lines` is about, its label, and a problem if the chosen one does not exist.

    Every page whose filter chooses the same lines gets the same one.
    """
    labels = {label: epsilon for label, epsilon in query.index.epsilons(lines).items() if epsilon > 0}
    known = matching(chosen, labels)
    if known is not None:
        return labels[known], known, ""
    epsilon = _halving(query, lines, labels.values())
    label = next((text for text, value in labels.items() if value == epsilon), f"{epsilon:g}")
    wrong = f"No line that the filter chooses has ε = “{chosen[:60]}”: ε = {label} is taken." if chosen else ""
    return epsilon, label, wrong


def halving(query: Query, lines: Sequence[Line]) -> float:
    """The smallest epsilon of `lines` at which some attack on them leaves BP at most half of its images.

    There the strongest attack is strong, and some images are still robust. Where no attack goes so far, the largest
    epsilon; without BP the first rule stands for it. BP is taken from all results of the store, under the exact
    gradient where that was run: the choice does not depend on which rules and gradients are shown.
    """
    return _halving(query, lines, [epsilon for epsilon in query.index.epsilons(lines).values() if epsilon > 0])


def _halving(query: Query, lines: Sequence[Line], shown: Collection[float]) -> float:
    index, baseline = query.index, _Baselines.of(query.index, lines)
    rows = np.concatenate([np.zeros(0, int), *(np.arange(line.start, line.stop) for line in baseline)])
    value, epsilon = index.numbers("value", rows), index.epsilon[rows]
    kept = ~np.isnan(value) & np.isin(epsilon, list(shown))
    if query.seeds:
        kept &= np.isin(index.seed[rows], sorted(query.seeds))
    value, epsilon, line = value[kept], epsilon[kept], index.line_numbers(rows[kept])
    if not len(value):
        return max(shown, default=0.0)
    first = np.flatnonzero(np.append(True, (line[1:] != line[:-1]) | (epsilon[1:] != epsilon[:-1])))
    score = np.add.reduceat(value, first) / np.diff(np.append(first, len(value)))
    lost = epsilon[first][score <= 0.5]
    return float(lost.min() if len(lost) else epsilon.max())


def finding(
    query: Query, lines: Sequence[Line], epsilon: float, label: str, title: str, rest: str = "the table below has all"
) -> list[Words]:
    """For each rule of `lines` under each attack at one epsilon whether it is more robust than BP; none without BP.

    All gradients of these attacks in the store are considered, whichever `lines` have. The exact gradient decides:
    what only the model's own feedback shows is masking. A gap counts where it excludes zero after Holm's correction
    over its panel. `rest` says where the omitted comparisons are.
    """
    groups = _groups(query, lines)
    sentences: list[str] = []
    covered: list[_Gap] = []
    # A few at a time: a portion of a page may have hundreds, and only the first are shown.
    for first in range(0, len(groups), MOST):
        chunk = groups[first : first + MOST]
        gaps = {gap.curve.line: gap for gap in gap_lines(query, [line for group in chunk for line in group], "bp")}
        for group in chunk:
            by_gradient = _gaps_at(group, gaps, epsilon)
            if by_gradient and len(sentences) < MOST:
                sentences.append(_sentence(query, by_gradient, label))
                covered += by_gradient.values()
        if len(sentences) == MOST:
            break
    if not sentences:
        return []
    if len(sentences) == MOST < len(groups):
        sentences.append(f"These are the first {MOST} of {len(groups):,} comparisons; {rest}.")
    if any(point.gap.n < FEW_IMAGES or point.gap.seeds < FEW_SEEDS for _, point in covered):
        sentences.append(_DEMONSTRATION)
    return [Words(title=title, sentences=sentences, tone="finding")]


class _Baselines:
    """For each figure and attack of an index the line that stands for BP, under the gradient that decides."""

    def __init__(self, index: Index) -> None:
        numbers: dict[tuple[str, ...], int] = {}
        #: The figure and attack of each line, as a number.
        self.family = np.array([numbers.setdefault(line.attacked, len(numbers)) for line in index.lines], int)
        baselines: dict[int, tuple[tuple[bool, bool], Line]] = {}
        for line, family in zip(
            index.ordered, self.family[[line.number for line in index.ordered]].tolist(), strict=True
        ):
            rank = (line.rule != "bp", line.gradient != "exact")
            if family not in baselines or rank < baselines[family][0]:
                baselines[family] = rank, line
        self._lines = [baselines[family][1] for family in range(len(baselines))]

    @classmethod
    def of(cls, index: Index, lines: Sequence[Line]) -> list[Line]:
        """The lines that stand for BP in the figures and attacks of `lines`."""
        # Computed once: an index may have 100,000 lines.
        baselines = _KNOWN.get(index) or _KNOWN.setdefault(index, cls(index))
        return [
            baselines._lines[family] for family in np.unique(baselines.family[[line.number for line in lines]]).tolist()
        ]


_KNOWN: WeakKeyDictionary[Index, _Baselines] = WeakKeyDictionary()


def _groups(query: Query, lines: Sequence[Line]) -> list[list[Line]]:
    """For each of `lines` that can be compared with BP, the lines under every gradient."""
    index, gradients = query.index, query.index.choices("gradient")
    keys = [(line.attacked, line.key[-len(RULE) :]) for line in lines if line.rule != "bp"]
    groups = [
        [line for gradient in gradients if (line := index.named((*attack, gradient, *rule))) is not None]
        for attack, rule in dict.fromkeys(keys)
    ]
    return [group for group in groups if any(query.bp(line) is not None for line in group)]


def _gaps_at(group: Sequence[Line], gaps: Mapping[int, GapLine], epsilon: float) -> dict[str, _Gap]:
    """The gaps of a group at an epsilon, by gradient."""
    by_gradient = {line.gradient: gap for line in group if (gap := gaps.get(line.number)) is not None}
    return {name: (gap, point) for name, gap in by_gradient.items() if (point := gap.point(epsilon)) is not None}


def _sentence(query: Query, by_gradient: Mapping[str, _Gap], label: str) -> str:
    curve = next(iter(by_gradient.values()))[0].curve
    decides = next((name for name in ("exact", "none") if name in by_gradient), "")
    answer = _answer(query, by_gradient, decides) if decides else "not known: run this attack with gradient: exact"
    seeds, images = (min(getattr(point.gap, name) for _, point in by_gradient.values()) for name in ("seeds", "n"))
    if decides and by_gradient[decides][1].gap.seeds == 1:
        answer = f"for this one seed only: {answer.removeprefix('yes, ').removeprefix('no, ')}"
    first = sorted(by_gradient.items(), key=lambda pair: pair[0] != decides)
    gaps = ", ".join(f"{style.points(point.gap)} points {_under(gap)}" for _, (gap, point) in first)
    place = f"{style.label(curve.rule_label)} on {curve.title}, {curve.attack_label} at ε = {label}"
    rests = f"{style.counted(seeds, 'seed')} × {style.counted(images, 'image')}"
    return f"{place}: {answer} (95 % intervals, uncorrected: {gaps}; {rests})."


def _answer(query: Query, by_gradient: Mapping[str, _Gap], decides: str) -> str:
    line, decided = by_gradient[decides]
    after = f"after Holm's correction over {style.counted(line.family, 'comparison')}"
    higher = decided.gap.value > 0
    if decided.clear:
        how = "more" if higher else "less"
        what = f"{how} robust than BP" if decides == "exact" else f"it keeps {how} than BP"
        answer = f"{'yes' if higher else 'no'}, " if decides == "exact" else ""
        answer += f"{what} {_under(line)}, where the gap excludes zero {after}"
    elif (most := _higher(query, line, decided)) <= FLOOR:
        answer = f"nothing is left to compare {_under(line)}: both keep at most {100 * most:.1f} %"
    else:
        answer = f"no difference from BP is shown: {_under(line)} the gap does not exclude zero {after}"
    masked = "feedback" in by_gradient and by_gradient["feedback"][1].clear and by_gradient["feedback"][1].gap.value > 0
    return answer + (_MASKING if decides == "exact" and masked and not (decided.clear and higher) else "")


def _higher(query: Query, line: GapLine, decided: GapPoint) -> float:
    """The higher of the two scores of a gap."""
    bp = query.bp(query.index.lines[line.curve.line])
    points = (curve.point(decided.point.epsilon) for curve in query.curves([bp] if bp else []))
    return max([decided.point.score.value, *(point.score.value for point in points if point)])


def _under(line: GapLine) -> str:
    name = line.curve.gradient
    return "without a gradient" if name == "none" else f"under {style.gradient(name)}"
